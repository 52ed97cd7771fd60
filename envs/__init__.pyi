from .adapters.gymnasium.simulator import (
    GymnasiumSimulator as GymnasiumSimulator,
)
from .adapters.jax.env import (
    JaxEnvironment as JaxEnvironment,
)
from .adapters.jax.env import (
    JaxState as JaxState,
)
from .adapters.learned.env import (
    LearnedModel as LearnedModel,
)
from .adapters.learned.imagined import (
    Imagined as Imagined,
)
from .adapters.mujoco.adapter import (
    MuJoCo as MuJoCo,
)
from .adapters.simulation.central_differences import (
    CentralDifferences as CentralDifferences,
)
from .adapters.simulation.central_differences import (
    Steps as Steps,
)
from .adapters.simulation.finite_difference import (
    FiniteDifference as FiniteDifference,
)
from .adapters.simulation.finite_difference import (
    SimulatedState as SimulatedState,
)
from .adapters.simulation.simulator import (
    Linearization as Linearization,
)
from .adapters.simulation.simulator import (
    Outcome as Outcome,
)
from .adapters.simulation.simulator import (
    Precision as Precision,
)
from .adapters.simulation.simulator import (
    Simulator as Simulator,
)
from .adapters.warp import (
    WarpKernel as WarpKernel,
)
from .analytic.chaos import (
    Chaos as Chaos,
)
from .analytic.exact import (
    ExactGradient as ExactGradient,
)
from .analytic.exact import (
    ExactMoments as ExactMoments,
)
from .analytic.lqg.cost import (
    LQGGradient as LQGGradient,
)
from .analytic.lqg.env import (
    LQG as LQG,
)
from .analytic.lqg.env import (
    LQGState as LQGState,
)
from .analytic.lqg.moments import (
    GradientMoments as GradientMoments,
)
from .analytic.lqg.moments import (
    LQGEstimator as LQGEstimator,
)
from .analytic.step import (
    Step as Step,
)
from .analytic.wall import (
    Wall as Wall,
)
from .checks.finding import (
    Finding as Finding,
)
from .control.acrobot import (
    Acrobot as Acrobot,
)
from .control.acrobot import (
    AcrobotSwingUp as AcrobotSwingUp,
)
from .control.cart_pole import (
    CartPole as CartPole,
)
from .control.cart_pole import (
    CartPoleSwingUp as CartPoleSwingUp,
)
from .control.double_pendulum import (
    DoublePendulum as DoublePendulum,
)
from .control.hopper import (
    Hopper2D as Hopper2D,
)
from .control.mountain_car import (
    MountainCarContinuous as MountainCarContinuous,
)
from .control.pendulum import (
    Pendulum as Pendulum,
)
from .control.planar_quadrotor import (
    PlanarQuadrotor as PlanarQuadrotor,
)
from .control.point_mass import (
    PointMass as PointMass,
)
from .control.pusher import (
    PusherFriction as PusherFriction,
)
from .control.quadrotor import (
    Quadrotor as Quadrotor,
)
from .control.reacher import (
    ReacherTwoLink as ReacherTwoLink,
)
from .differentiable import (
    DifferentiableEnv as DifferentiableEnv,
)
from .differentiable import (
    GradientInfo as GradientInfo,
)
from .numpy_env import (
    NumpyEnv as NumpyEnv,
)
from .ordinary.action_mask import (
    ActionMask as ActionMask,
)
from .registry.resolve import (
    EnvSource as EnvSource,
)
from .states import (
    State as State,
)
from .states import (
    VectorState as VectorState,
)
from .states import (
    map_state as map_state,
)
from .states import (
    where_state as where_state,
)
from .vector import (
    DifferentiableVectorEnv as DifferentiableVectorEnv,
)
from .vectorized.make import (
    make_vector_env as make_vector_env,
)
from .vectorized.stepping import (
    Stepping as Stepping,
)
from .wrappers.action_repeat import (
    ActionRepeat as ActionRepeat,
)
from .wrappers.base import (
    DifferentiableWrapper as DifferentiableWrapper,
)
from .wrappers.gradient_gate import (
    GradientGate as GradientGate,
)
from .wrappers.observation_detach import (
    ObservationDetach as ObservationDetach,
)
from .wrappers.smoothing_bundle import (
    SmoothingBundle as SmoothingBundle,
)
from .wrappers.surrogate_cost import (
    SurrogateCost as SurrogateCost,
)
