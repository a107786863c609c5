"""FastAPI on uvicorn with two workers, one a core (https://fastapi.tiangolo.com/deployment/server-workers/).

`def` and not `async def`, so that FastAPI runs the blocking read in its thread pool
(https://fastapi.tiangolo.com/async/).
"""

from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.servers.recipe import Recipe, port

app = FastAPI()
recipe: Recipe


class Customer(BaseModel):
    user_id: int


@app.post("/predict")
def predict(customer: Customer) -> dict[str, Any]:
    return recipe.answer([customer.user_id])[0]


if __name__ == "__main__":
    uvicorn.run(
        "benchmarks.servers.fastapi_program:app",
        host="127.0.0.1",
        port=port(),
        workers=2,
        log_level="warning",
        access_log=False,
    )
elif __name__ == "benchmarks.servers.fastapi_program":  # a worker imports it by name
    recipe = Recipe()
