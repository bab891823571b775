"""Objects written once and rendered twice: as plain YAML with the values filled in, and as a Helm template that asks for them.

An object is made of dicts, lists, strings and numbers; where a value comes in stands one of the leaves below. It knows no Kubernetes.
Standard library only.
"""

import json
import re
from dataclasses import dataclass


@dataclass
class Value:
    """What stands at this path of the values. An empty map, list or string leaves its key out."""

    path: str


@dataclass
class Splice:
    """In a list: the items of the list at this path."""

    path: str


@dataclass
class Text:
    """A string put together from strings and leaves."""

    parts: tuple


@dataclass
class Name:
    """The name of what belongs to this installation."""


@dataclass
class Namespace:
    """The namespace it is installed into; in plain YAML a variable of the values, for Kustomize does not look into strings."""


@dataclass
class Document:
    """The map at this path as the text of a YAML file."""

    path: str


@dataclass
class File:
    """The text of a file of the chart."""

    name: str


@dataclass
class Tree:
    """The YAML in a file of the chart, in this place."""

    name: str


@dataclass
class When:
    """Only where the value at this path is set, or is that one."""

    path: str
    node: object
    equal: object = None


@dataclass
class Labels:
    """The labels of an object: those it is chosen by, and in Helm those that say where it comes from."""

    own: dict


def look(values, path):
    for step in path.split("."):
        values = values[step]
    return values


# ---- plain


class _Nothing:
    """In the place of what is left out."""


NOTHING = _Nothing()


def plain(node, values):
    """The object with the values filled in."""
    match node:
        case When(path, inner, equal):
            stands = look(values, path)
            return plain(inner, values) if (stands == equal if equal is not None else stands) else NOTHING
        case Value(path):
            found = look(values, path)
            return NOTHING if found in ({}, [], "") else found
        case Text(parts):
            return "".join(str(plain(part, values)) for part in parts)
        case Name():
            return "weir"
        case Namespace():
            return values["plain"]["namespace"]
        case Document(path):
            return yaml(look(values, path)) + "\n"
        case Labels(own):
            return plain(own, values)
        case dict():
            made = {key: plain(inner, values) for key, inner in node.items()}
            return {key: inner for key, inner in made.items() if inner is not NOTHING}
        case list():
            made = []
            for item in node:
                if isinstance(item, Splice):
                    made += look(values, item.path)
                elif (inner := plain(item, values)) is not NOTHING:
                    made.append(inner)
            return made
        case File() | Tree():
            raise TypeError("files are for charts only")
    return node


def yaml(node, depth=0):
    """YAML of plain objects: strings in double quotes where they could be taken for something else, texts of lines as blocks."""
    pad = "  " * depth
    if isinstance(node, dict):
        lines = []
        for key, inner in node.items():
            if isinstance(inner, (dict, list)) and inner:
                lines.append(f"{pad}{scalar(key)}:\n{yaml(inner, depth + 1)}")
            elif isinstance(inner, str) and "\n" in inner:
                lines.append(f"{pad}{scalar(key)}: |\n" + "\n".join(f"{pad}  {line}".rstrip() for line in inner.rstrip("\n").split("\n")))
            else:
                lines.append(f"{pad}{scalar(key)}: {scalar(inner)}")
        return "\n".join(lines)
    items = (yaml(inner, depth + 1).lstrip() if isinstance(inner, (dict, list)) and inner else scalar(inner) for inner in node)
    return "\n".join(f"{pad}- {item}" for item in items)


def scalar(value):
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z/][A-Za-z0-9_.:/-]*|[0-9]+(ms|[smhd]|MiB|GiB|Mi|Gi)", value):
        if value.lower() not in ("true", "false", "null", "yes", "no", "on", "off", "y", "n") and not value.endswith(":"):
            return value
    return json.dumps(value, ensure_ascii=False)


# ---- Helm


def template(node, defaults, depth=0):
    """The object as lines of a Helm template. The defaults tell only of which kind a value is."""
    pad = "  " * depth
    lines = []
    if isinstance(node, dict):
        for key, inner in node.items():
            lines += _entry(scalar(key), inner, defaults, depth)
        return lines
    for item in node:
        if isinstance(item, When):
            lines += [f"{pad}{{{{- if {_condition(item)} }}}}", *_item(item.node, defaults, depth), f"{pad}{{{{- end }}}}"]
        else:
            lines += _item(item, defaults, depth)
    return lines


def _entry(key, inner, defaults, depth):
    pad = "  " * depth
    match inner:
        case When():
            return [f"{pad}{{{{- if {_condition(inner)} }}}}", *_entry(key, inner.node, defaults, depth), f"{pad}{{{{- end }}}}"]
        case Value(path) if isinstance(look(defaults, path), (dict, list)):
            return [f"{pad}{{{{- with .Values.{path} }}}}", f"{pad}{key}:", f"{pad}  {{{{- toYaml . | nindent {2 * depth + 2} }}}}", f"{pad}{{{{- end }}}}"]
        case Value(path) if look(defaults, path) == "":
            return [f"{pad}{{{{- with .Values.{path} }}}}", f"{pad}{key}: {{{{ . | quote }}}}", f"{pad}{{{{- end }}}}"]
        case Document(path):
            return [f"{pad}{key}: |", f"{pad}  {{{{- toYaml .Values.{path} | nindent {2 * depth + 2} }}}}"]
        case File(name):
            return [f"{pad}{key}: |", f'{pad}  {{{{- .Files.Get "{name}" | nindent {2 * depth + 2} }}}}']
        case Tree(name):
            return [f"{pad}{key}:", f'{pad}  {{{{- .Files.Get "{name}" | nindent {2 * depth + 2} }}}}']
        case Labels(own):
            return [f"{pad}{key}:", *template(own, defaults, depth + 1), f'{pad}  {{{{- include "weir.origin" . | nindent {2 * depth + 2} }}}}']
        case dict() | list() if inner:
            return [f"{pad}{key}:", *template(inner, defaults, depth + 1)]
    return [f"{pad}{key}: {_inline(inner, defaults)}"]


def _item(item, defaults, depth):
    pad = "  " * depth
    if isinstance(item, Splice):
        return [f"{pad}{{{{- with .Values.{item.path} }}}}", f"{pad}{{{{- toYaml . | nindent {2 * depth} }}}}", f"{pad}{{{{- end }}}}"]
    if isinstance(item, dict):
        lines = template(item, defaults, depth + 1)
        return [f"{pad}- {lines[0].lstrip()}", *lines[1:]]
    return [f"{pad}- {_inline(item, defaults)}"]


def _inline(node, defaults):
    match node:
        case Text(parts):
            # What is literal may hold quotes, as a query does.
            return '"' + "".join(json.dumps(part)[1:-1] if isinstance(part, str) else _action(part) for part in parts) + '"'
        case Value(path):
            default = look(defaults, path)
            quoted = isinstance(default, str)
            return f"{{{{ .Values.{path}{' | quote' if quoted else ' | int' if type(default) is int else ''} }}}}"
        case Name() | Namespace():
            return _action(node)
    return scalar(node)


def _action(node):
    match node:
        case Name():
            return '{{ include "weir.fullname" . }}'
        case Namespace():
            return "{{ .Release.Namespace }}"
        case Value(path):
            return f"{{{{ .Values.{path} }}}}"
    raise TypeError(node)


def _condition(when):
    if when.equal is None:
        return f".Values.{when.path}"
    return f"eq .Values.{when.path} {json.dumps(when.equal)}"
