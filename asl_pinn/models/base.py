"""What a kinetic model is: a table of parameters and a curve."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from asl_pinn.acquisition.constants import (
    LABELING_EFFICIENCY,
    PARTITION_COEFFICIENT,
    T1_BLOOD,
    T1_TISSUE,
    T1_WHITE_MATTER,
)
from asl_pinn.errors import InputError

Values = Sequence[ArrayLike]
"""One array for each parameter of a model, in the order of its table."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prior:
    """Normal distribution of a parameter before anything is measured.

    Attributes
    ----------
    mean : float or None
        In the parameter's unit; None for the constant of the parameter's name that the data
        state (`Tissue.t1_tissue` for 't1_tissue').
    sd : float
        In the parameter's unit.
    weak : bool
        True where it regularises the fit of a single voxel and no more: methods that learn the
        distribution of the parameter over the voxels put that in its place. False where it is
        knowledge that every method must keep.
    """

    mean: float | None
    sd: float
    weak: bool = dataclasses.field(default=False, metadata={"static": True})


def _static(**arguments: Any) -> Any:
    return dataclasses.field(metadata={"static": True}, **arguments)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameter:
    """One row of a model's table: all that solvers, files, pictures and reports need to know.

    Bounds and prior are leaves of the pytree, so that other values compile nothing anew.

    Attributes
    ----------
    name : str
        As in the OSIPI lexicon: 'cbf'; key of maps and options.
    label, symbol : str
        'cerebral blood flow' and 'CBF', for people.
    unit : str
        'mL/100g/min', 's', or '1' for a fraction.
    typical : float
        A value in healthy grey matter; where a linear parameter's basis curve is taken.
    lower, upper : float
        Bounds of the fit, in its unit.
    scale : float
        One unit of the solvers, so that they work with numbers of order one.
    prior : Prior or None
        What is known beforehand.
    linear : bool
        Whether the signal is (nearly) proportional to it, so that its best value at given other
        parameters has a closed form.
    link : {'identity', 'softplus', 'log'}
        Scale on which fields and networks represent it; all but the first keep it positive.
    kinked : bool
        Whether the curve has kinks in it, so that costs have several minima: it is searched on a
        grid, and averages are taken over it.
    follows_tissue : bool
        Whether its map may follow covariates such as M0 and T1.
    suffix : str
        Suffix of its files; the name unless given.
    colours : str
        Colour map of matplotlib.
    shown : tuple of float, or None
        Ends of the colours of its maps, in its unit, the same for all methods and brains; None for
        those that the data at hand suggest.
    digits : int
        Decimals in tables.
    sparse : bool
        Whether it is an amplitude that most voxels do not have, such as arterial blood: the data
        decide in which voxels it is not 0, and where it is 0 the rest of its model is not fitted.
    follows : str
        Name of a kinked parameter that this one is not greater than, '' for none: arterial blood
        arrives before the tissue that it feeds.
    shared : bool
        Whether one value serves all voxels of a brain; it is settled before the fit of the voxels.
    tissue : str
        Label of the one tissue that it belongs to, such as 'GM', in the names of its files; '' for
        the voxel as a whole.
    """

    name: str = _static()
    label: str = _static()
    symbol: str = _static()
    unit: str = _static()
    typical: float = _static()
    lower: float
    upper: float
    scale: float = _static()
    prior: Prior | None = None
    linear: bool = _static(default=False)
    link: Literal["identity", "softplus", "log"] = _static(default="log")
    kinked: bool = _static(default=False)
    follows_tissue: bool = _static(default=False)
    suffix: str = _static(default="")
    colours: str = _static(default="viridis")
    shown: tuple[float, float] | None = _static(default=None)
    digits: int = _static(default=2)
    sparse: bool = _static(default=False)
    follows: str = _static(default="")
    shared: bool = _static(default=False)
    tissue: str = _static(default="")

    @property
    def file_suffix(self) -> str:
        """Suffix of its files: '<suffix>.nii.gz'."""
        return self.suffix or self.name

    @property
    def knowledge(self) -> Prior | None:
        """Its prior where every method must keep it; None for none, and for a weak one."""
        return None if self.prior is None or self.prior.weak else self.prior

    @property
    def heading(self) -> str:
        """'CBF [mL/100g/min]', for axes and tables."""
        return self.symbol if self.unit == "1" else f"{self.symbol} [{self.unit}]"


class Timing(NamedTuple):
    """When measurements were labelled and read.

    Attributes
    ----------
    t : array_like
        From the start of the (sub-)bolus to the readout of the first slice [s].
    label_duration : array_like
        Duration of the (sub-)bolus [s].
    readout_delay : array_like
        What the slice's readout adds to `t` [s]; apart, as few delays serve many voxels.
    """

    t: ArrayLike
    label_duration: ArrayLike
    readout_delay: ArrayLike = 0.0


class Tissue(NamedTuple):
    """Constants of tissue.

    Attributes
    ----------
    m0 : array_like
        Equilibrium magnetisation [a.u.].
    t1_tissue : array_like
        Longitudinal relaxation time [s].
    partition_coefficient : array_like
        Blood-tissue partition coefficient of water [mL/g].
    gm, wm : array_like or None
        Fractions of grey and white matter in the voxel; None where no model asks for them.
    t1_gm, t1_wm : array_like
        Longitudinal relaxation times of pure grey and white matter [s].
    """

    m0: ArrayLike = 1.0
    t1_tissue: ArrayLike = T1_TISSUE
    partition_coefficient: ArrayLike = PARTITION_COEFFICIENT
    gm: ArrayLike | None = None
    wm: ArrayLike | None = None
    t1_gm: ArrayLike = T1_TISSUE
    t1_wm: ArrayLike = T1_WHITE_MATTER


class Kernel(Protocol):
    """Distribution of the times that label is late by, when vessels disperse the bolus."""

    def arrived(self, x: ArrayLike) -> Array:
        """Fraction of a sharp edge that has arrived a time x [s] after it would have.

        Parameters
        ----------
        x : array_like
            Time since a sharp edge would have arrived [s].

        Returns
        -------
        Array
            Of the broadcast shape, 0 to 1.
        """
        ...

    def remaining(self, x: ArrayLike, rate: ArrayLike) -> Array:
        """The same of label that leaves at a rate [1/s] once it has arrived.

        Parameters
        ----------
        x : array_like
            Time since a sharp edge would have arrived [s].
        rate : array_like
            [1/s].

        Returns
        -------
        Array
            Of the broadcast shape.
        """
        ...


class Blood(NamedTuple):
    """Constants of arterial blood and its labelling.

    Attributes
    ----------
    t1_blood : array_like
        Longitudinal relaxation time [s].
    labeling_efficiency : array_like
        Fraction of the magnetisation that is inverted, suppression losses included.
    bolus_decay : array_like or None
        Rate at which label decays between the arrivals of the leading edge of the bolus and its own
        [1/s]: 1/T1b where all of the bolus was labelled at once (pulsed); None for none, as all of
        it has travelled for the same time (continuous).
    kernel : Kernel or None
        Dispersion of the bolus on its way; None for sharp edges.
    """

    t1_blood: ArrayLike = T1_BLOOD
    labeling_efficiency: ArrayLike = LABELING_EFFICIENCY
    bolus_decay: ArrayLike | None = None
    kernel: Kernel | None = None


class KineticModel:
    """Base of all models, which are frozen dataclasses registered as pytrees.

    A model states its `parameters`, `name`, `description` and `references`, and defines `signal`.
    One with linear parameters may define a quicker `basis`; one that changes what the other
    models of a sum see, such as an inferred T1, defines `constants` and has no signal.
    """

    parameters: tuple[Parameter, ...]
    name: str
    description: str
    references: tuple[str, ...] = ()
    has_signal: bool = True
    needs_fractions: bool = False
    """Whether it reads the fractions of the tissues in a voxel."""

    def signal(self, values: Values, timing: Timing, tissue: Tissue, blood: Blood) -> Array:
        """Control-label difference that the model predicts; everything broadcasts.

        Parameters
        ----------
        values : sequence of array_like
            One for each parameter, in its unit.
        timing : Timing
            Delays [s].
        tissue : Tissue
            Constants.
        blood : Blood
            Constants.

        Returns
        -------
        Array
            In the unit of M0, of the broadcast shape.
        """
        raise NotImplementedError

    def constants(self, values: Values, tissue: Tissue, blood: Blood) -> tuple[Tissue, Blood]:
        """Constants that the models of a sum see, given the values of this one's parameters.

        They may depend on parameters that are neither linear nor kinked: `basis` evaluates them
        once for a whole grid.

        Parameters
        ----------
        values : sequence of array_like
            One for each parameter of this model, in its unit.
        tissue, blood
            As the data state them, or as the models before this one have left them.

        Returns
        -------
        tissue : Tissue
        blood : Blood
        """
        return tissue, blood

    def basis(
        self, held: Values, timing: Timing, tissue: Tissue, blood: Blood
    ) -> Callable[..., tuple[Array, ...]]:
        """Curves of the linear parameters, each at its typical value.

        What does not depend on the kinked parameters is computed once, which serves grids.

        Parameters
        ----------
        held : sequence of array_like
            Values of the parameters that are neither linear nor kinked, in order.
        timing, tissue, blood
            As in `signal`.

        Returns
        -------
        callable
            Values of the kinked parameters, in order, to one curve for each linear parameter.
            At typical amplitudes the curves add up to `signal`.
        """

        def curves(*kinked: ArrayLike) -> tuple[Array, ...]:
            return tuple(self._alone(p, held, kinked, timing, tissue, blood) for p in self.linear)

        return curves

    def _alone(
        self,
        chosen: Parameter,
        held: Values,
        kinked: Values,
        timing: Timing,
        tissue: Tissue,
        blood: Blood,
    ) -> Array:
        """Signal with every other amplitude at 0."""
        smooth, searched = iter(held), iter(kinked)
        values: list[ArrayLike] = []
        for p in self.parameters:
            if p.linear:
                values.append(p.typical if p.name == chosen.name else 0.0)
            else:
                values.append(next(searched if p.kinked else smooth))
        return self.signal(values, timing, tissue, blood)

    @property
    def linear(self) -> tuple[Parameter, ...]:
        """Parameters that are amplitudes."""
        return tuple(p for p in self.parameters if p.linear)

    @property
    def kinked(self) -> tuple[Parameter, ...]:
        """Parameters that are searched on a grid."""
        return tuple(p for p in self.parameters if p.kinked and not p.linear)

    @property
    def smooth(self) -> tuple[Parameter, ...]:
        """Parameters that a grid holds at their centres."""
        return tuple(p for p in self.parameters if not p.kinked and not p.linear)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return tuple(p.name for p in self.parameters)

    def __getitem__(self, name: str) -> Parameter:
        """The parameter of a name."""
        return self.parameters[self.names.index(name)]

    def centres(self, tissue: Tissue, blood: Blood) -> tuple[ArrayLike, ...]:
        """Where each parameter lies before anything is measured, in its unit.

        Parameters
        ----------
        tissue : Tissue
            Constants that the data state.
        blood : Blood
            Constants that the data state.

        Returns
        -------
        tuple of array_like
            The prior's mean; else the constant of the same name; else the typical value.
        """
        stated = {**tissue._asdict(), **blood._asdict()}
        return tuple(
            stated.get(p.name, p.typical)
            if p.prior is None or p.prior.mean is None
            else p.prior.mean
            for p in self.parameters
        )

    def time_derivative(
        self,
        values: Values,
        timing: Timing,
        tissue: Tissue,
        blood: Blood,
        label_duration_slope: ArrayLike = 0.0,
    ) -> Array:
        """Total time derivative of the signal, dM/dt + dM/dtau * tau'(t).

        Parameters
        ----------
        values, timing, tissue, blood
            As in `signal`.
        label_duration_slope : array_like
            tau'(t), the change of the bolus duration from one measurement to the next [s/s];
            0 for the partial derivative at a fixed bolus.

        Returns
        -------
        Array
            In the unit of M0 per second, of the broadcast shape; at a kink the mean of both sides.
        """

        def at(t: Array, label_duration: Array) -> Array:
            moved = timing._replace(t=t, label_duration=label_duration)
            return self.signal(values, moved, tissue, blood)

        everything = jax.tree.leaves((values, timing, tissue, blood, label_duration_slope))
        shape = jnp.broadcast_shapes(*map(jnp.shape, everything))
        dtype = jnp.result_type(float, *everything)

        # One forward pass in the direction (1, tau') gives both terms, without an analytic
        # derivative that each model would have to bring along.
        def full(value: ArrayLike) -> Array:
            return jnp.broadcast_to(jnp.asarray(value, dtype), shape)

        times = full(timing.t), full(timing.label_duration)
        return jax.jvp(at, times, (jnp.ones(shape, dtype), full(label_duration_slope)))[1]

    def curve(
        self,
        values: Mapping[str, ArrayLike],
        *,
        t: ArrayLike,
        label_duration: ArrayLike,
        m0: ArrayLike = 1.0,
        t1_tissue: ArrayLike = T1_TISSUE,
        t1_blood: ArrayLike = T1_BLOOD,
        labeling_efficiency: ArrayLike = LABELING_EFFICIENCY,
        partition_coefficient: ArrayLike = PARTITION_COEFFICIENT,
        gm: ArrayLike | None = None,
        wm: ArrayLike | None = None,
    ) -> Array:
        """Control-label difference for parameters by name; all arguments broadcast.

        Parameters
        ----------
        values : mapping of str to array_like
            Every parameter of the model, in its unit.
        t : array_like
            Time since the start of the bolus, label duration plus post-labelling delay [s].
        label_duration : array_like
            Duration of the bolus [s].
        m0 : array_like
            Equilibrium magnetisation of tissue [a.u.].
        t1_tissue, t1_blood : array_like
            Longitudinal relaxation times of tissue and arterial blood [s].
        labeling_efficiency : array_like
            Fraction of the arterial magnetisation that is inverted.
        partition_coefficient : array_like
            Blood-tissue partition coefficient of water [mL/g].
        gm, wm : array_like, optional
            Fractions of grey and white matter, for models that need them.

        Returns
        -------
        Array
            Difference signal in the unit of `m0`, of the broadcast shape.

        Raises
        ------
        InputError
            If a parameter is missing or unknown, or fractions that the model needs.
        """
        if set(values) != set(self.names):
            raise InputError(
                f"model {self.name} takes {', '.join(self.names)}, not "
                f"{', '.join(values) or 'nothing'}"
            )
        return self.signal(
            [jnp.asarray(values[name]) for name in self.names],
            Timing(jnp.asarray(t), jnp.asarray(label_duration)),
            Tissue(
                jnp.asarray(m0),
                jnp.asarray(t1_tissue),
                jnp.asarray(partition_coefficient),
                None if gm is None else jnp.asarray(gm),
                None if wm is None else jnp.asarray(wm),
            ),
            Blood(jnp.asarray(t1_blood), jnp.asarray(labeling_efficiency)),
        )

    def softened(self) -> "KineticModel":
        """The model as estimators fit it, with a slope where the curve itself has a jump."""
        return self

    def __add__(self, other: "KineticModel") -> "KineticModel":
        """The model whose signal is the sum of both."""
        from asl_pinn.models.compose import Sum  # which is itself a model

        parts = [model.models if isinstance(model, Sum) else (model,) for model in (self, other)]
        return Sum((*parts[0], *parts[1]))
