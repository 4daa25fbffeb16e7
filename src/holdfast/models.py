"""Models by name: a folder, a Hub id, `lab:base` / `lab:chat`, or where one is served.

Weights are loaded from safetensors only; a served model has none here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.endpoint import Address
from holdfast.errors import MaterialError, ModelError, did_you_mean
from holdfast.extras import have, need
from holdfast.files import digest, sha256_file
from holdfast.processes.launch import current


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model's name as the user wrote it, and where it is."""

    name: str
    path: Path | None
    """Local folder; None: a Hub id."""
    base: str | None = None
    """For an adapter folder: the model it was trained on, as its configuration says."""
    address: Address | None = None
    """For a served model: where it is."""
    revision: str | None = None
    """For a Hub id: the commit to take; None: the newest."""

    @property
    def is_lab(self) -> bool:
        """Whether this is one of the built-in scale models."""
        return self.name.startswith("lab:")

    @property
    def location(self) -> str:
        """What `from_pretrained` is given."""
        return str(self.path) if self.path else self.name


def quiet_libraries() -> None:
    """Let the libraries below speak only of errors; their bars would mix with ours."""
    if not have("transformers"):
        return
    import logging
    import warnings

    import transformers

    for library in ("transformers", "peft", "torch", "accelerate"):
        warnings.filterwarnings("ignore", module=library)

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("accelerate").setLevel(logging.ERROR)


def resolve_model(name: str | Path) -> ModelRef:
    """Where a model is.

    Raises:
        ModelError: a folder that is not a model, or a name that is neither.
    """
    name = str(name)
    if name.startswith("lab:"):
        from holdfast.lab import model_path

        return ModelRef(name, model_path(name))
    address = Address.parse(name)
    if address is not None:
        return ModelRef(address.name, None, address=address)
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(name, path)
    if path.exists():
        raise ModelError(f"{name} is a file; a model is a folder, a Hub id, or lab:chat.")
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return ModelRef(name, None)
    near = [str(p) for p in path.parent.glob("*") if p.is_dir()] if path.parent.is_dir() else []
    raise ModelError(
        f"There is no model folder {name}, and it is no Hub id (owner/name). "
        f"{did_you_mean(str(path), near)}"
    )


def _folder(name: str, path: Path) -> ModelRef:
    if (path / "adapter_config.json").is_file():
        base = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
        return ModelRef(name, path, base.get("base_model_name_or_path"))
    if not (path / "config.json").is_file():
        raise ModelError(f"{name} has no config.json: it is not a Hugging Face model folder.")
    if not list(path.glob("*.safetensors")):
        raise ModelError(
            f"{name} has no *.safetensors weights. Holdfast loads safetensors only; convert the "
            "weights with `model.save_pretrained(folder)`."
        )
    return ModelRef(name, path)


def fingerprint(ref: ModelRef) -> str:
    """What identifies a model's weights, tokenizer and template in a manifest.

    Of a served model only its address is known: what stands behind it may change unseen.
    """
    if ref.address is not None:
        return digest("served", ref.name)
    if ref.path is None:
        return _hub_revision(ref.name)
    kept = (".safetensors", ".json", ".jinja", ".model", ".txt")
    files = sorted(p for p in ref.path.iterdir() if p.suffix in kept and p.name != "card.json")
    return digest([[p.name, sha256_file(p)] for p in files])


def load_tokenizer(ref: ModelRef) -> Any:
    """The model's fast tokenizer.

    Raises:
        ModelError: a folder without one.
        MaterialError: a Hub id that cannot be reached.
    """
    _has_weights(ref)
    need("transformers", extra="train", purpose="rendering rows for a model")
    from transformers import AutoTokenizer

    if ref.path and not any((ref.path / f).is_file() for f in _TOKENIZER_FILES):
        raise ModelError(
            f"{ref.name} has no tokenizer (tokenizer.json). Save it beside the weights with "
            "`tokenizer.save_pretrained(folder)`."
        )
    tokenizer = _from_hub(
        ref, lambda: AutoTokenizer.from_pretrained(ref.location, use_fast=True, **_pin(ref))
    )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _has_weights(ref: ModelRef) -> None:
    if ref.address is not None:
        raise ModelError(
            f"{ref.name} is served elsewhere and has no weights here; it can be evaluated, or be a "
            "judge's grader. To train or render for it, give its folder or Hub id."
        )


_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")


def load_model(
    ref: ModelRef,
    *,
    device: str | None = None,
    quantise: bool = False,
    full_precision: bool = False,
    trainable: bool = False,
    sharded: bool = False,
) -> Any:
    """The causal language model, in evaluation mode.

    Args:
        ref: folder, Hub id or lab model; an adapter folder is loaded onto its base.
        device: torch device; None: a GPU where there is one.
        quantise: load in 4 bits (QLoRA).
        full_precision: 32-bit weights on a GPU too, as training all of them needs.
        trainable: whether an adapter is to be trained further.
        sharded: leave it in the computer's memory, for a trainer that shares it out over GPUs.

    Raises:
        ModelError: weights that do not load.
        MaterialError: a Hub id that cannot be reached, or an extra that is missing.
    """
    _has_weights(ref)
    need("torch", extra="train", purpose="running a model")

    if ref.base is not None:
        return _load_adapter(ref, device, quantise, trainable)
    device = device or _own_device()
    options: dict[str, Any] = {"dtype": _dtype(device, full_precision), **_safe(ref)}
    device = "cpu" if sharded else device
    if quantise:
        options["quantization_config"] = _four_bit(device)
        options["device_map"] = {"": device}
    from transformers import AutoModelForCausalLM

    model = _from_hub(ref, lambda: AutoModelForCausalLM.from_pretrained(ref.location, **options))
    return (model if quantise else model.to(device)).eval()


def load_classifier(ref: ModelRef, *, device: str | None = None) -> Any:
    """A sequence classifier, in evaluation mode and 32 bits.

    Raises:
        ModelError: weights that do not load, or have no head for classes.
        MaterialError: a Hub id that cannot be reached, or an extra that is missing.
    """
    _has_weights(ref)
    need("torch", extra="train", purpose="running a model")
    import torch
    from transformers import AutoModelForSequenceClassification as Classifier

    device = device or _own_device()
    options: dict[str, Any] = {"dtype": torch.float32, "output_loading_info": True, **_safe(ref)}
    model, told = _from_hub(ref, lambda: Classifier.from_pretrained(ref.location, **options))
    if told["missing_keys"]:
        raise ModelError(
            f"{ref.name} lacks {len(told['missing_keys'])} weights of a sequence classifier (such "
            f"as {sorted(told['missing_keys'])[0]}): they would be random. Name a trained one."
        )
    return model.to(device).eval()


def _own_device() -> str:
    """A GPU where there is one; of several processes each has its own."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    here = current()
    return f"cuda:{here.local_rank % torch.cuda.device_count()}" if here.world > 1 else "cuda"


def _safe(ref: ModelRef) -> dict[str, Any]:
    """What every load of weights says."""
    return {"use_safetensors": True, "trust_remote_code": False, **_pin(ref)}


def _pin(ref: ModelRef) -> dict[str, str]:
    """The commit of a Hub model, where one is named."""
    return {"revision": ref.revision} if ref.revision and ref.path is None else {}


def _load_adapter(ref: ModelRef, device: str | None, quantise: bool, trainable: bool) -> Any:
    need("peft", extra="train", purpose="loading an adapter")
    from peft import PeftModel

    assert ref.base is not None
    base = load_model(resolve_model(ref.base), device=device, quantise=quantise)
    return PeftModel.from_pretrained(base, ref.location, is_trainable=trainable).eval()


def _dtype(device: str, full_precision: bool) -> Any:
    import torch

    if not full_precision and device.startswith("cuda") and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float32


def _four_bit(device: str) -> Any:
    need("bitsandbytes", extra="qlora", purpose="4-bit weights (`method: qlora`)")
    if not device.startswith("cuda"):
        raise ModelError("`method: qlora` needs a CUDA GPU; use `lora` or `full` on this machine.")
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=True,
    )


def _from_hub(ref: ModelRef, load: Any) -> Any:
    """Run a `from_pretrained`, turning its many failures into one message each."""
    try:
        return load()
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().partition("\n")[0]
        if ref.path is None:
            raise MaterialError(
                f"The model {ref.name!r} could not be fetched from the Hub ({first}). Check the "
                "name and the network, or download it elsewhere and give the folder."
            ) from None
        raise ModelError(f"{ref.name} could not be loaded: {first}") from None


def _transport_errors() -> tuple[type[Exception], ...]:
    """What the Hub's own HTTP library raises where there is no network; it is no OSError."""
    try:
        import httpx2
    except ImportError:
        return ()
    return (httpx2.HTTPError,)


def _hub_revision(name: str) -> str:
    from huggingface_hub import model_info
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return str(model_info(name).sha)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, *_transport_errors()) as error:
        first = str(error).partition("\n")[0]
        raise MaterialError(
            f"The model {name!r} could not be looked up on the Hub ({first}). Check the name and "
            "the network, or download it elsewhere and give the folder."
        ) from None
