"""Models made of models: sums, and models some of whose parameters are held."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from asl_pinn.errors import InputError
from asl_pinn.models.base import Blood, KineticModel, Parameter, Timing, Tissue, Values


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sum(KineticModel):
    """Models whose signals add up; those without a signal change the constants of the others."""

    models: tuple[KineticModel, ...]

    def __post_init__(self) -> None:
        names = [p.name for model in self.models for p in model.parameters]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"model {self.name}: {', '.join(twice)} occurs twice")

    @property
    def name(self) -> str:  # type: ignore[override]
        """Names of the models, joined by '+'."""
        return "+".join(model.name for model in self.models)

    @property
    def description(self) -> str:  # type: ignore[override]
        """What the models are, one after the other."""
        return ", with ".join(model.description for model in self.models)

    @property
    def references(self) -> tuple[str, ...]:  # type: ignore[override]
        """Works of all models, each once."""
        return tuple(dict.fromkeys(work for model in self.models for work in model.references))

    @property
    def has_signal(self) -> bool:  # type: ignore[override]
        """Whether any of the models has."""
        return any(model.has_signal for model in self.models)

    @property
    def needs_fractions(self) -> bool:  # type: ignore[override]
        """Whether any of the models does."""
        return any(model.needs_fractions for model in self.models)

    @property
    def parameters(self) -> tuple[Parameter, ...]:  # type: ignore[override]
        """Those of all models, in order."""
        return tuple(p for model in self.models for p in model.parameters)

    def constants(self, values: Values, tissue: Tissue, blood: Blood) -> tuple[Tissue, Blood]:
        """Constants after every model has changed them."""
        for model, own in zip(self.models, self._split(values), strict=True):
            tissue, blood = model.constants(own, tissue, blood)
        return tissue, blood

    def signal(self, values: Values, timing: Timing, tissue: Tissue, blood: Blood) -> Array:
        """Sum of the signals, with the constants that the models leave."""
        seen = self.constants(values, tissue, blood)
        signals = (
            model.signal(own, timing, *seen)
            for model, own in zip(self.models, self._split(values), strict=True)
            if model.has_signal
        )
        return functools.reduce(jnp.add, signals)

    def basis(
        self, held: Values, timing: Timing, tissue: Tissue, blood: Blood
    ) -> Callable[..., tuple[Array, ...]]:
        """Curves of all models, one after the other."""
        values = dict(zip((p.name for p in self.smooth), held, strict=True))
        # Linear and kinked parameters do not enter the constants; any value of theirs does here.
        centres = [values.get(p.name, p.typical) for p in self.parameters]
        seen = self.constants(centres, tissue, blood)
        parts = [model for model in self.models if model.has_signal]
        curves = [
            model.basis([values[p.name] for p in model.smooth], timing, *seen) for model in parts
        ]

        def all_curves(*kinked: ArrayLike) -> tuple[Array, ...]:
            at = dict(zip((p.name for p in self.kinked), kinked, strict=True))
            return tuple(
                row
                for model, curve in zip(parts, curves, strict=True)
                for row in curve(*(at[p.name] for p in model.kinked))
            )

        return all_curves

    def softened(self) -> "Sum":
        """The sum of the models as estimators fit them."""
        return Sum(tuple(model.softened() for model in self.models))

    def _split(self, values: Values) -> list[Values]:
        """The values of each model's own parameters."""
        rest = iter(values)
        return [[next(rest) for _ in model.parameters] for model in self.models]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Fixed(KineticModel):
    """A model some of whose parameters are held at stated values, by name; from `fix`."""

    model: KineticModel
    held: dict[str, float]

    @property
    def name(self) -> str:  # type: ignore[override]
        """That of the model."""
        return self.model.name

    @property
    def description(self) -> str:  # type: ignore[override]
        """That of the model, and what is held."""
        held = (
            f"{self.model[n].symbol} held at {value:g} {self.model[n].unit}"
            for n, value in self.held.items()
        )
        return ", ".join([self.model.description, *held])

    @property
    def references(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of the model."""
        return self.model.references

    @property
    def has_signal(self) -> bool:  # type: ignore[override]
        """That of the model."""
        return self.model.has_signal

    @property
    def needs_fractions(self) -> bool:  # type: ignore[override]
        """Whether the model does."""
        return self.model.needs_fractions

    @property
    def parameters(self) -> tuple[Parameter, ...]:  # type: ignore[override]
        """Those that are free."""
        return tuple(p for p in self.model.parameters if p.name not in self.held)

    def constants(self, values: Values, tissue: Tissue, blood: Blood) -> tuple[Tissue, Blood]:
        """Those of the model."""
        return self.model.constants(self.complete(values), tissue, blood)

    def signal(self, values: Values, timing: Timing, tissue: Tissue, blood: Blood) -> Array:
        """That of the model at the held values."""
        return self.model.signal(self.complete(values), timing, tissue, blood)

    def basis(
        self, held: Values, timing: Timing, tissue: Tissue, blood: Blood
    ) -> Callable[..., tuple[Array, ...]]:
        """Those of the model at the held values."""
        free = dict(zip((p.name for p in self.smooth), held, strict=True)) | self.held
        curve = self.model.basis([free[p.name] for p in self.model.smooth], timing, tissue, blood)

        def curves(*kinked: ArrayLike) -> tuple[Array, ...]:
            at = dict(zip((p.name for p in self.kinked), kinked, strict=True)) | self.held
            return curve(*(at[p.name] for p in self.model.kinked))

        return curves

    def softened(self) -> "Fixed":
        """The model as estimators fit it, with the same held."""
        return Fixed(self.model.softened(), self.held)

    def complete(self, values: Values) -> list[ArrayLike]:
        """Values of all parameters of the model, from those that are free."""
        free = iter(values)
        return [
            self.held[p.name] if p.name in self.held else next(free) for p in self.model.parameters
        ]


def components(model: KineticModel) -> dict[str, tuple[str, ...]]:
    """Parameters that mean nothing where an amplitude that most voxels lack is 0.

    Parameters
    ----------
    model : KineticModel
        A sum, or one some of whose parameters are held.

    Returns
    -------
    dict of str to tuple of str
        By name of each sparse amplitude, the other free parameters of its part of the sum.

    Examples
    --------
    >>> from asl_pinn.models import get
    >>> components(get("buxton+arterial"))
    {'abv': ('abat',)}
    """
    if isinstance(model, Fixed):
        return {
            amplitude: tuple(name for name in others if name not in model.held)
            for amplitude, others in components(model.model).items()
        }
    parts = model.models if isinstance(model, Sum) else ()
    return {
        p.name: tuple(name for name in part.names if name != p.name)
        for part in parts
        for p in part.parameters
        if p.sparse
    }


def without_sparse(model: KineticModel) -> KineticModel:
    """The model of voxels that lack all that is sparse: the sum without those parts.

    Parameters
    ----------
    model : KineticModel
        A sum, or one some of whose parameters are held.

    Returns
    -------
    KineticModel
        `model` itself where nothing in it is sparse.
    """
    if not components(model):
        return model
    if isinstance(model, Fixed):
        rest = without_sparse(model.model)
        held = {name: value for name, value in model.held.items() if name in rest.names}
        return Fixed(rest, held) if held else rest
    assert isinstance(model, Sum)
    kept = tuple(part for part in model.models if not any(p.sparse for p in part.parameters))
    return kept[0] if len(kept) == 1 else Sum(kept)
