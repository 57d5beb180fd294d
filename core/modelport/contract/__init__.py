"""The contract: every noun that a plugin's hooks take and return.

`modelport.hookspecs` is the manual that uses them. This package imports NumPy and msgspec, and nothing heavier.
"""

from modelport.contract.api import Api, ErrorReply, model_id, model_route, status_of
from modelport.contract.array import Array, DeviceArray, to_numpy
from modelport.contract.backend import Backend, LoadContext, Progress, Verdict
from modelport.contract.card import ModelCard
from modelport.contract.device import Device, Probe
from modelport.contract.errors import (
    Cancelled,
    ConfigurationError,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    InputTooLong,
    InvalidRequest,
    ModelFailed,
    ModelportError,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    Unauthenticated,
    Unavailable,
    UnsupportedParameter,
    WrongTask,
)
from modelport.contract.generate import (
    Constraint,
    Engine,
    EngineLoad,
    GenerateEvent,
    GenerateRequest,
    Sampling,
    TokenLogprob,
)
from modelport.contract.host import DeltaStream, Host, ModelInfo, Principal
from modelport.contract.program import (
    Argmax,
    ArraySpec,
    At,
    Cast,
    Dense,
    Forward,
    Generate,
    LogSoftmax,
    Module,
    Normalize,
    Output,
    Pool,
    Program,
    Sigmoid,
    Softmax,
    Splade,
    TopK,
)
from modelport.contract.reply import Options, Reply, Timings, Usage
from modelport.contract.runner import Limits, Runner
from modelport.contract.session import Generation, Item, Run, Session, SessionContext
from modelport.contract.skill import Claim, Skill
from modelport.contract.task import Media, Task, Tensor

CONTRACT_VERSION = "1.0"
"""What a plugin states as `MODELPORT_CONTRACT`: the major must be equal, the minor at most this one."""

__all__ = [
    "CONTRACT_VERSION",
    "Api",
    "Argmax",
    "Array",
    "ArraySpec",
    "At",
    "Backend",
    "Cancelled",
    "Cast",
    "Claim",
    "ConfigurationError",
    "Conflict",
    "Constraint",
    "DeadlineExceeded",
    "DeltaStream",
    "Dense",
    "Device",
    "DeviceArray",
    "Engine",
    "EngineLoad",
    "ErrorReply",
    "Forbidden",
    "Forward",
    "Generate",
    "GenerateEvent",
    "GenerateRequest",
    "Generation",
    "Host",
    "InputTooLong",
    "InvalidRequest",
    "Item",
    "Limits",
    "LoadContext",
    "LogSoftmax",
    "Media",
    "ModelCard",
    "ModelFailed",
    "ModelInfo",
    "ModelportError",
    "Module",
    "Normalize",
    "NotFound",
    "Options",
    "Output",
    "Overloaded",
    "PayloadTooLarge",
    "Pool",
    "Principal",
    "Probe",
    "Program",
    "Progress",
    "Reply",
    "Run",
    "Runner",
    "Sampling",
    "Session",
    "SessionContext",
    "Sigmoid",
    "Skill",
    "Softmax",
    "Splade",
    "Task",
    "Tensor",
    "Timings",
    "TokenLogprob",
    "TopK",
    "Unauthenticated",
    "Unavailable",
    "UnsupportedParameter",
    "Usage",
    "Verdict",
    "WrongTask",
    "model_id",
    "model_route",
    "status_of",
    "to_numpy",
]
