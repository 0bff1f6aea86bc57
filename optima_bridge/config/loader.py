"""From files, environment and command line to a checked configuration, or to all of its errors at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any

from optima_bridge.config.advice import advise
from optima_bridge.config.check import check
from optima_bridge.config.layers import ConfigPaths, Merged, leaves, read_layers
from optima_bridge.config.model import Config, effective
from optima_bridge.config.problems import Origin, Problem, dotted
from optima_bridge.errors import ConfigError


@dataclass(frozen=True)
class LoadedConfig:
    """A valid configuration and what is known about it.

    Attributes:
        files: that were read, lowest layer first.
        findings: what is legal but unwise.
    """

    config: Config
    files: tuple[FilePath, ...]
    findings: tuple[Problem, ...]
    _merged: Merged

    @property
    def warnings(self) -> list[str]:
        """The findings, one line each."""
        return [str(finding) for finding in self.findings]

    @cached_property
    def values(self) -> dict[str, Any]:
        """Every value in force by its dotted path; secrets are references."""
        return {dotted(path): value for path, value in leaves(effective(self.config))}

    @cached_property
    def origins(self) -> dict[str, Origin]:
        """Where each of the `values` was set."""
        return {dotted(path): self._merged.origin(path) for path, _ in leaves(effective(self.config))}


def load(
    source: ConfigPaths | FilePath | str | None,
    env: Mapping[str, str],
    overrides: Mapping[str, object] = {},
) -> LoadedConfig:
    """Read, merge and check the configuration.

    Args:
        source: the places to look in; or the main file, then its drop-ins are in ``conf.d`` beside it; None: /etc.
        env: variables ``OPTIMA_BRIDGE__SECTION__KEY`` count, others are ignored.
        overrides: values from the command line by dotted path, ``{"log.level": "debug"}``; None means not given.

    Raises:
        ConfigError: with every error of every file, one a line; `data` has ``problems`` and ``warnings`` as documents.
        DuplicateDriver: two installed packages offer the same driver.
    """
    paths = source if isinstance(source, ConfigPaths) else ConfigPaths.of(source)
    files = paths.files()
    layers, problems = read_layers(files, env, overrides)
    all_read = all(problem.warning for problem in problems)
    merged = Merged(paths.main)
    for layer in layers:
        merged.add(layer)
    config, found = check(merged)
    if all_read:
        problems += found
    else:  # what seems to be missing may stand in the file that could not be read
        problems += [problem for problem in found if not problem.what.startswith("missing")]
    if config is not None:
        problems += advise(config, merged)
    problems = sorted(set(problems), key=lambda problem: problem.sort_key)
    errors = [problem for problem in problems if not problem.warning]
    findings = tuple(problem for problem in problems if problem.warning)
    if errors or config is None:
        raise ConfigError(
            "\n".join(map(str, errors)),
            problems=[error.document() for error in errors],
            warnings=[finding.document() for finding in findings],
        )
    return LoadedConfig(config, tuple(files), findings, merged)
