"""Units, aircraft types, static rules, parameters and state of the air-traffic world.

Reading order: units, atmosphere at the flight level, `AircraftType` and the table of types, `Rules` (static choices
that decide which code is traced), `AtcParams` and `AtcState`, which of its aircraft are piloted and which fly.

Arrays of one airspace have the aircraft as their first axis [N]; inside the step the batch follows it, [N, B].
"""

import math
from typing import Any, Literal, NamedTuple

import jax
from flax import struct

KNOT_MS = 0.514444
KNOTS_PER_MS = 1.94384
"""Used by the origin where it reads a speed back; not the exact inverse of `KNOT_MS`."""
NM_M = 1852.0
EARTH_M = 6_371_000.0
"""Earth radius of the motion."""
EARTH_NM = 3440.065
"""Earth radius of distances."""
GRAVITY = 9.80665
GAS = 287.05287
TAN_BANK = math.tan(math.radians(25.0))

PRESSURE_SEA, DENSITY_SEA, TEMPERATURE_SEA = 101_325.0, 1.225, 288.15
ALTITUDE_M = 10_000 * 0.3048
TEMPERATURE = TEMPERATURE_SEA - 0.0065 * ALTITUDE_M
DENSITY = DENSITY_SEA * (TEMPERATURE / TEMPERATURE_SEA) ** 4.256848030018761
PRESSURE = DENSITY * GAS * TEMPERATURE
PRESSURE_FL350 = 23_835.91856249144
CAS_MACH08_FL350 = 139.87389287254996
"""m/s; thrust is referred to Mach 0.8 at flight level 350."""
SOUND_MS = math.sqrt(1.4 * GAS * TEMPERATURE)

SUBSTEPS = 10
"""Seconds of one control step, each one substep."""
TURN_DEG = 18.0
SPEED_KT = 10.0
"""Heading and speed change of an action of 1."""
CAS_RANGE_KT = (100.0, 400.0)
NOBODY_NM = 200.0
"""Separation of an aircraft that is alone."""
FAR_NM = 1e3
"""Stands for the distance to aircraft that are not there: large, finite."""


class AircraftType(NamedTuple):
    """Envelope and drag polar at the flight level (OpenAP coefficients as BlueSky uses them)."""

    cas_min_ms: float
    cas_max_ms: float
    mach_max: float
    mass_kg: float
    wing_m2: float
    engines: int
    thrust_n: float
    """Take-off thrust of one engine."""
    drag_0: float
    drag_lift: float
    """k in cd = cd0 + k cl^2."""


TYPES = {
    "A320": AircraftType(67.0, 163.0, 0.80, 60_300.0, 124.0, 2, 117_900.0, 0.018, 0.039),
    "B738": AircraftType(72.0, 161.0, 0.80, 60_200.0, 124.6, 2, 116_990.0, 0.019, 0.042),
    "B744": AircraftType(72.0, 180.0, 0.87, 289_600.0, 525.6, 4, 254_260.0, 0.021, 0.049),
    "CRJ9": AircraftType(64.0, 159.0, 0.79, 28_916.5, 71.07, 2, 59_420.0, 0.018, 0.042),
}

Layout = Literal["body", "origin18"]
NeighborSort = Literal["distance", "tcpa", "threat"]


class Rules(NamedTuple):
    """Static choices; the defaults are the preset `standard`, `ORIGIN` is the origin's."""

    num_aircraft: int = 2
    neighbors: int = 3
    """Neighbour slots of an observation."""
    layout: Layout = "body"
    neighbor_sort: NeighborSort = "distance"
    discrete: bool = False
    delay_steps: int = 0
    kinematics: Literal["fast", "exact"] = "fast"
    steering: Literal["hold_heading", "hold_track"] = "hold_heading"
    """What a wind leaves as commanded."""
    windy: bool = False
    leave_on_arrival: bool = True
    each_second: bool = True
    """Separation and arrival at every second of a step; else at its end, by great circles."""
    rounded_commands: bool = False
    """Commands in tenths of a degree and of a knot."""
    charge_raw_action: bool = False
    """Actions inside the dead band cost what they asked for."""
    drift: Literal["signed", "positive", "origin"] = "signed"
    blank_memory: bool = False
    """Rewards start without a memory of the start: no progress in the first step, no angle before it."""
    entry_per_pair: bool = False
    team: Literal["potential", "smoothed"] = "potential"
    team_share: Literal["equal", "responsibility", "neighbor"] = "equal"
    bootstrap_at_horizon: bool = False
    """The horizon cuts an episode that would go on: nothing is paid there."""


ORIGIN: dict[str, Any] = {
    "layout": "origin18",
    "kinematics": "exact",
    "steering": "hold_track",
    "leave_on_arrival": False,
    "each_second": False,
    "rounded_commands": True,
    "charge_raw_action": True,
    "drift": "origin",
    "blank_memory": True,
    "team": "smoothed",
    "team_share": "responsibility",
}
"""Rules of the preset `origin`."""


@struct.dataclass
class Performance:
    """What an aircraft can do, [N] each."""

    cas_min_ms: jax.Array
    cas_max_ms: jax.Array
    tas_max_ms: jax.Array
    """Maximum Mach number at the flight level."""
    lift: jax.Array
    """m g / S, N/m2."""
    drag_0: jax.Array
    drag_lift: jax.Array
    mass_per_wing: jax.Array
    """kg/m2"""
    thrust: jax.Array
    """Reference thrust over wing area, N/m2."""
    acceleration: tuple[jax.Array, ...]
    """Coefficients of the limit in m/s2 over u = (tas - 130)/60, highest power first; half a metre at least."""


@struct.dataclass
class Start:
    """Where aircraft start and where they go, [N] each; degrees are offsets from the centre."""

    dlat: jax.Array
    dlon: jax.Array
    hdg: jax.Array
    """deg, 0 north, 90 east."""
    cas: jax.Array
    """m/s, calibrated."""
    goal_dlat: jax.Array
    goal_dlon: jax.Array
    present: jax.Array
    """bool; False where the arrays are padded."""


@struct.dataclass
class Jitter:
    """Half widths of the uniform changes of a start."""

    position_nm: float
    heading_deg: float
    speed_kt: float


@struct.dataclass
class Rewards:
    """Numbers of the reward."""

    progress_per_km: float
    drift_gain: float
    drift_deadzone_deg: float
    entry: float
    violation_step: float
    action: float
    time_per_s: float
    reach: float
    not_reached: float
    team_weight: float
    team_gamma: float
    team_ema: float
    team_cap: float
    team_anneal: float


@struct.dataclass
class Limits:
    """Radii in NM, horizon in steps."""

    separation_nm: float
    collision_nm: float
    deep_breach_nm: float
    safe_nm: float
    waypoint_nm: float
    near_miss_nm: float
    terminate_nm: float
    """An episode ends with a separation below it; 0: never."""
    horizon: float
    deadband_deg: float
    deadband_kt: float


@struct.dataclass
class Sensing:
    """Errors of what pilots are told."""

    position_nm: float
    """Standard deviation of every reported position, north and east."""
    speed_kt: float
    """Of every reported true airspeed."""
    dropout: float
    """Probability that a pilot does not hear of one neighbour in one step."""


@struct.dataclass
class AtcParams:
    """Everything that may be mapped over."""

    start: Start
    performance: Performance
    jitter: Jitter
    wind_north_ms: float
    """Where the wind blows to."""
    wind_east_ms: float
    lat: float
    """Centre, deg."""
    rewards: Rewards
    limits: Limits
    sensing: Sensing | None = None
    """None: pilots see the truth, and nothing random is drawn in a step."""
    delay_steps: float | None = None
    """Steps by which actions are late, at most `Rules.delay_steps`; None: as many."""


@struct.dataclass
class Tally:
    """Sums over the episode, for its metrics."""

    pair_nm: jax.Array
    """[N // 2, N] smallest separation so far of aircraft i and i + s; see `geometry.partners`."""
    los_seconds: jax.Array
    los_events: jax.Array
    collision_events: jax.Array
    near_miss_events: jax.Array
    steps: jax.Array
    """[N] control steps flown."""
    path_nm: jax.Array
    """[N]"""
    direct_nm: jax.Array
    """[N] from start to waypoint."""
    effort: jax.Array
    """[N] sum of |a0| + |a1| over 2."""
    turn: jax.Array
    """[N] last commanded turn, deg."""
    oscillations: jax.Array
    """[N]"""
    interventions: jax.Array
    """[N]"""


@struct.dataclass
class Held:
    """Commands that aircraft without a pilot follow, [N]."""

    heading_deg: jax.Array
    cas_kt: jax.Array


@struct.dataclass
class AtcState:
    """An airspace between two steps, [N] unless said."""

    dlat: jax.Array
    """deg from the centre; degrees of the globe do not fit into 32 bits."""
    dlon: jax.Array
    hdg: jax.Array
    """deg in [0, 360)."""
    tas: jax.Array
    """m/s, true."""
    goal_dlat: jax.Array
    goal_dlon: jax.Array
    present: jax.Array
    arrived: jax.Array
    goal_nm: jax.Array
    """Distance to the waypoint."""
    min_sep_nm: jax.Array
    """Smallest separation of the last step."""
    off_course_deg: jax.Array
    """Angle between heading and waypoint, [0, 180]."""
    violating: jax.Array
    """Closer than the separation in the last step: bool, or with `entry_per_pair` of pairs [N // 2, N]."""
    potential: jax.Array
    """() team potential Phi."""
    smoothed: jax.Array
    """() moving average of its change (`team: smoothed`)."""
    steps: jax.Array
    """() int32"""
    held: Held | None
    """With `leave_on_arrival` off."""
    queue: jax.Array | None
    """[delay, N, 2] actions waiting, oldest first."""
    tally: Tally


def is_piloted(state: AtcState):
    """Who flies to its waypoint, bool, same shape as `present`: takes commands, is in conflicts, gives alerts."""
    return state.present & ~state.arrived


def is_flying(state: AtcState, rules: Rules):
    """Who is in the way of others, bool; aircraft of the origin fly on after their arrival."""
    return is_piloted(state) if rules.leave_on_arrival else state.present
