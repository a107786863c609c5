"""MLflow's scoring server over a pyfunc that reads once a request; two workers (`mlflow models serve -w 2`).

python -m benchmarks.servers.mlflow_pyfunc FOLDER     # saves the model; `mlflow models serve` runs it
"""

import sys
from typing import Any

import mlflow.pyfunc


class Churn(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
    def load_context(self, context: Any) -> None:
        from benchmarks.servers.recipe import Recipe

        self._recipe = Recipe()

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        return self._recipe.answer(model_input["user_id"].tolist())


if __name__ == "__main__":
    mlflow.pyfunc.save_model(sys.argv[1], python_model=Churn(), pip_requirements=[])
