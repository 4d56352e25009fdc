"""Replies of actions: a manifest's text with {slot} and {response.field} placeholders, filled with values.

Called by `answerers.dispatch`. A placeholder is looked up, never evaluated: there are no attributes, calls or format
specifications, and what a value holds is not looked at again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

from chatflow_runtime.errors import ActionFailed

_PLACEHOLDER = re.compile(r"\{([A-Za-z][A-Za-z0-9_-]*(?:\.[^{}.\s]+)*)\}")
_HAN = re.compile("[\u3400-\u9fff]")


def fill(template: str, slots: Mapping[str, str], response: object) -> str:
    """The template with its placeholders replaced.

    `response` is decoded JSON; dots lead into objects, a number into a list (`items.0.name`), and a name after a list
    into each of its elements. Lists are joined by 、 or a comma, and true, false and an empty list become words, as the
    template is Chinese or not. Braces around anything but a placeholder stay. Raises ActionFailed when a slot or a
    field is not there, is null, or is a whole object: half an answer would mislead.
    """
    is_chinese = _HAN.search(template) is not None

    def value(match: re.Match[str]) -> str:
        name, *path = match.group(1).split(".")
        if name == "response":
            return _spoken(_lookup(response, path), match.group(0), is_chinese)
        if path or name not in slots:
            raise ActionFailed(
                f"the reply uses {match.group(0)}, but the slots are {', '.join(sorted(slots)) or 'none'};"
                " name one of them, or a field as {response.field}"
            )
        return slots[name]

    return _PLACEHOLDER.sub(value, template)


def _lookup(response: object, path: list[str]) -> object:
    value = response
    for depth, name in enumerate(path):
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        elif isinstance(value, list) and not name.isdecimal():
            return [_lookup(element, path[depth:]) for element in value]
        else:
            fields = ", ".join(sorted(map(str, value))) if isinstance(value, Mapping) else type(value).__name__
            raise ActionFailed(
                f"the reply uses {{response.{'.'.join(path)}}}, but the API's answer has no {name!r} there (it has:"
                f" {fields[:200] or 'nothing'}); correct the reply or the API"
            )
    return value


def _spoken(value: object, placeholder: str, is_chinese: bool) -> str:
    """A JSON value in words."""
    match value:
        case bool():
            return ("是" if value else "否") if is_chinese else ("yes" if value else "no")
        case str() | int() | float() | Decimal():
            return str(value)
        case []:
            return "无" if is_chinese else "none"
        case list():
            joint = "、" if is_chinese else ", "
            return joint.join(_spoken(element, placeholder, is_chinese) for element in value)
        case _:
            kind = "null" if value is None else "an object"
            raise ActionFailed(
                f"the reply uses {placeholder}, but there the API's answer is {kind}; name a field in it"
            )
