"""pydantic's errors in the words of the store: what is expected at this key, and which key was probably meant.

The words come from the model's JSON schema, which has every type, range and choice; it is made only when there is an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, get_args

from optima_bridge.config.locate import Path
from optima_bridge.config.problems import Problem, dotted, nearest, shortened, toml

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from optima_bridge.config.layers import Merged

Schema = dict[str, Any]


def explain(error: ErrorDetails, schema: Schema, at: Path, merged: Merged, more_keys: Iterable[str] = ()) -> Problem:
    """One error of a model as a problem with its place.

    Args:
        schema: the model's JSON schema.
        at: path of the table that the model was given.
        more_keys: keys of that table that the model does not have, for suggestions.
    """
    path = _real_path(error, at, merged.tree)
    relative = path[len(at) :]
    nodes = _find(schema, relative)
    choices = [str(choice) for node in nodes for choice in node.get("enum", ())]
    suggestion, of_key = "", True
    if error["type"] == "extra_forbidden":
        siblings = [key for node in _find(schema, relative[:-1]) for key in node.get("properties", ())]
        what, suggestion = "unknown key", nearest(path[-1], [*siblings, *(more_keys if len(relative) == 1 else ())])
    elif error["type"] == "missing":
        what = f"missing, must be {_expected(nodes)}"
    elif error["loc"][-1:] == ("[key]",):
        names = [name for node in _find(schema, relative[:-1]) for name in _names(node, schema)]
        what = _own_message(error) or (f"a name here must be {_expected(names)}" if names else error["msg"])
        suggestion = nearest(path[-1], [str(choice) for node in names for choice in node.get("enum", ())])
    else:
        of_key = False
        if message := _own_message(error):
            what = message
        elif choices and isinstance(error["input"], str):
            what, suggestion = f"not one of {', '.join(choices)}", nearest(error["input"], choices)
        else:
            what = f"must be {_expected(nodes)}{_quotes(nodes, error['input'])}" if nodes else error["msg"]
    return Problem(
        origin=merged.place(path, of_key=of_key),
        path=dotted(path),
        value="" if of_key or _is_secret(schema, relative) else shortened(error["input"]),
        what=what,
        suggestion=suggestion,
    )


def is_text(schema: Schema, relative: Path) -> bool:
    """Whether the model takes text at this path."""
    return any(node.get("type") == "string" for node in _find(schema, relative))


def _real_path(error: ErrorDetails, at: Path, tree: Any) -> Path:
    """The path in the file: pydantic adds steps for keys (``[key]``) and for the branches of a union."""
    path: Path = ()
    for step in (*at, *error["loc"]):
        is_real = step in tree if isinstance(tree, dict) else isinstance(tree, list) and isinstance(step, int)
        if is_real:
            path, tree = (*path, step), tree[step]
    return (*path, error["loc"][-1]) if error["type"] == "missing" else path


def _own_message(error: ErrorDetails) -> str:
    """What a validator of ours or of a driver says; empty for pydantic's own errors."""
    from pydantic_core.core_schema import ErrorType

    if error["type"] in ("value_error", "assertion_error"):
        return str(error["ctx"]["error"])
    return "" if error["type"] in get_args(ErrorType) else error["msg"]


def _find(schema: Schema, path: Path) -> list[Schema]:
    """The schemas of what may stand at this path, alternatives side by side."""
    nodes = _alternatives(schema, schema)
    for step in path:
        nodes = [found for node in nodes for child in _children(node, step) for found in _alternatives(child, schema)]
    return nodes


def _is_secret(schema: Schema, path: Path) -> bool:
    return any(node.get("writeOnly") for end in range(len(path) + 1) for node in _find(schema, path[:end]))


def _alternatives(node: Schema, schema: Schema) -> list[Schema]:
    if reference := node.get("$ref"):
        target = schema["$defs"][reference.removeprefix("#/$defs/")]
        return _alternatives({**target, **{key: value for key, value in node.items() if key != "$ref"}}, schema)
    branches = node.get("anyOf") or node.get("oneOf")
    if not branches:
        return [] if node.get("type") == "null" else [node]  # TOML has no null
    return [found for branch in branches for found in _alternatives(branch, schema)]


def _children(node: Schema, step: str | int) -> list[Schema]:
    if isinstance(step, int):
        candidates = [node.get("items")]
    elif step in node.get("properties", {}):
        candidates = [node["properties"][step]]
    else:
        candidates = [*node.get("patternProperties", {}).values(), node.get("additionalProperties")]
    return [child for child in candidates if isinstance(child, dict)]


def _names(node: Schema, schema: Schema) -> list[Schema]:
    """What the keys of a table without fixed keys may be."""
    if "propertyNames" in node:
        return _alternatives(node["propertyNames"], schema)
    return [{"pattern": pattern} for pattern in node.get("patternProperties", ())]


def _expected(nodes: list[Schema]) -> str:
    return " or ".join(dict.fromkeys(map(_words, nodes)))


def _quotes(nodes: list[Schema], value: object) -> str:
    """1042 and "1042" look alike to most people."""
    wants_text = any(node.get("type") == "string" for node in nodes)
    if wants_text and not isinstance(value, str):
        return ", in quotes"
    wants_word = any(node.get("type") in ("integer", "number", "boolean") for node in nodes)
    return ", without quotes" if wants_word and not wants_text and isinstance(value, str) else ""


def _words(node: Schema) -> str:
    if "const" in node:
        return str(node["const"])
    if "enum" in node:
        return f"one of {', '.join(map(toml, node['enum']))}"
    match node.get("type"):
        case "boolean":
            return "true or false"
        case "integer" | "number" as kind:
            return ("a whole number" if kind == "integer" else "a number") + _range(node)
        case "array":
            return "an array"
        case "object":
            return "a table"
        case _:
            return "text" + (f" of the form {_bare(node['pattern'])}" if "pattern" in node else "") + _length(node)


def _range(node: Schema) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    if low is not None and high is not None:
        return f", {low}–{high}"
    bounds = {
        "minimum": "at least",
        "exclusiveMinimum": "more than",
        "maximum": "at most",
        "exclusiveMaximum": "less than",
    }
    return "".join(f", {words} {node[key]}" for key, words in bounds.items() if key in node)


def _length(node: Schema) -> str:
    low, high = node.get("minLength", 0), node.get("maxLength")
    if high is None:
        return ", not empty" if low == 1 else f", {low} characters or more" if low else ""
    return f", {low}–{high} characters"


def _bare(pattern: str) -> str:
    return pattern.removeprefix("^").removesuffix("$")
