"""A configuration file: TOML whose tables are the configuration's own dataclasses, every number with its name.

host = "0.0.0.0"
markets = ["H100S-USE"]
[gateway]
rate_per_s = 5_000
[limits]
max_accounts = 100_000
"""

import dataclasses
import tomllib
import types
import typing
from pathlib import Path
from typing import Any

from engine.catalogue import CatalogueError
from engine.state import Limits
from gateway.config import GatewayConfig
from wellhead.additions import load_catalogue
from wellhead.config import Config

TABLES: dict[str, type[Any]] = {"gateway": GatewayConfig, "limits": Limits}


class SettingsError(ValueError):
    """The file is wrong; the message says where."""


def read(path: Path) -> dict[str, Any]:
    """What a file sets, as keyword arguments of `Config`. Raises SettingsError, OSError."""
    try:
        rows = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error
    found: dict[str, Any] = {}
    for name, cls in TABLES.items():
        table = rows.pop(name, None)
        if table is not None:
            if not isinstance(table, dict):
                raise SettingsError(f"{path}: {name} is a table")
            found[name] = cls(**_checked(path, cls, table, f"{name}."))
    return found | _checked(path, Config, rows, "")


def _checked(path: Path, cls: type[Any], values: dict[str, Any], prefix: str) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    known = {field.name for field in dataclasses.fields(cls)} - set(TABLES)
    checked = {}
    for name, value in values.items():
        if name not in known:
            raise SettingsError(f"{path}: there is no setting {prefix}{name}")
        checked[name] = _value(path, prefix + name, hints[name], value)
    return checked


def _value(path: Path, name: str, hint: Any, value: Any) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if Path in options and isinstance(value, str):
        return path.parent / value
    if any(typing.get_origin(option) is tuple for option in options) and isinstance(value, list):
        if all(isinstance(item, str) for item in value):
            return tuple(value)
    elif type(value) in options:
        if isinstance(value, int) and not isinstance(value, bool) and value < 0:
            raise SettingsError(f"{path}: {name} = {value}: not below zero")
        return value
    wanted = " or ".join(getattr(option, "__name__", str(option)) for option in options)
    raise SettingsError(f"{path}: {name} = {value!r}: a {wanted} is wanted")


def configure(path: Path | None, options: dict[str, Any], given: dict[str, Any]) -> Config:
    """The configuration of a node: options given, over the file, over the options' defaults.

    `origins` is the gateway's. Raises SettingsError, OSError.
    """
    file = read(path) if path is not None else {}
    values = {**options, **file, **given}
    origins = values.pop("origins")
    gateway = values.pop("gateway", GatewayConfig())
    if origins:
        gateway = dataclasses.replace(gateway, origins=origins)
    try:
        catalogue = load_catalogue(values["data_dir"])
    except CatalogueError as error:
        raise SettingsError(str(error)) from error
    for market in values["markets"]:
        class_name, _, region_name = market.partition("-")
        if class_name not in catalogue.class_by_name or region_name not in catalogue.region_by_name:
            raise SettingsError(f"{market!r} is not CLASS-REGION of the catalogue, for example H100S-USE")
    if (values["tls_cert"] is None) != (values["tls_key"] is None):
        raise SettingsError("a certificate and its key go together")
    return Config(**values, gateway=gateway)
