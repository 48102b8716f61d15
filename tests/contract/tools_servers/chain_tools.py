"""Tools of LangChain, some of which go wrong."""

import time
from typing import Annotated, Any

from langchain_core.tools import InjectedToolArg, ToolException, tool
from pydantic import BaseModel, Field

SECRET = "hunter2-do-not-show"


class Sum(BaseModel):
    """Numbers to add."""

    numbers: list[int] = Field(max_length=20)
    fields: str = "all"


@tool(args_schema=Sum)
def add(numbers: list[int], fields: str = "all") -> dict[str, Any]:
    """Add whole numbers and give the sum."""
    return {"sum": sum(numbers), "fields": fields}


@tool
async def later(text: str, user: Annotated[str, InjectedToolArg] = "nobody") -> str:
    """Give a text back, asynchronously."""
    return f"{text} for {user}"


@tool(response_format="content_and_artifact")
def picture(name: str) -> tuple[str, bytes]:
    """Draw a picture, and keep it beside the text."""
    return f"drew {name}", b"\x89PNG"


@tool
def breaks(text: str) -> str:
    """Raise what quotes a password."""
    raise ValueError(f"{text}: the password is {SECRET}")


@tool
def giant() -> str:
    """Give five megabytes."""
    return "x" * 5_000_000


@tool
def hang() -> str:
    """Never answer in time."""
    time.sleep(30)
    return "late"


@tool
def handled(text: str) -> str:
    """Handle its own error with the text of it."""
    raise ToolException(f"{text}: the password is {SECRET}")


handled.handle_tool_error = True
ALL = [add, later, picture, breaks, giant, hang, handled, "no tool"]
