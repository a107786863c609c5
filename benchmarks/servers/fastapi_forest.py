"""The usual recipe: FastAPI, a scikit-learn forest, Feast asked once a request.

One uvicorn worker; `def` and not `async def`, so that FastAPI runs the blocking read in its thread pool.
"""

import os
from pathlib import Path
from typing import Any

import joblib
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.servers.recipe import Recipe, answer, port
from handlers.encoding import encode

app = FastAPI()
recipe = Recipe()
forest = joblib.load(Path(os.environ["FOREST"]))


class Customer(BaseModel):
    user_id: int


@app.post("/predict")
def predict(customer: Customer) -> dict[str, Any]:
    numbers, _ = encode(recipe.features([customer.user_id]), recipe.numeric, {})
    score = float(forest.predict_proba(numbers)[0, 1])
    return answer(customer.user_id, score, recipe.threshold)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=port(), log_level="warning", access_log=False)
