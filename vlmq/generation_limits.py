"""What `generation` may ask for, whatever the checkpoint: known at the door, and held to by every engine."""

MAX_SEED = 2**63 - 1
# Below these, scores leave the range of floats and nothing can be drawn from them.
MIN_TEMPERATURE = 0.01
MIN_PENALTY = 0.01
# Each beam or text takes a cache of its own.
MAX_SEQUENCES = 16
MAX_TOP_LOGPROBS = 20

# Those that say something about drawing tokens by chance, and the value with which each does nothing.
SAMPLING: dict[str, float] = {
    "temperature": 1, "top_p": 1, "top_k": 0, "min_p": 0, "top_h": 1, "typical_p": 1, "epsilon_cutoff": 0,
    "eta_cutoff": 0,
}  # fmt: skip
