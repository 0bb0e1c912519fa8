"""A folder like those that sentence-transformers saves, without weights worth the name."""

import json
from pathlib import Path
from typing import Any

TYPE = "sentence_transformers.models."
LONGEST, LENGTH = 20, 6
FILES: dict[str, Any] = {
    "modules.json": [
        {"type": f"{TYPE}Transformer", "path": ""},
        {"type": f"{TYPE}Pooling", "path": "1_Pooling"},
        {"type": f"{TYPE}Normalize", "path": "2_Normalize"},
    ],
    "1_Pooling/config.json": {
        "word_embedding_dimension": LENGTH,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_cls_token": False,
    },
    "sentence_bert_config.json": {"max_seq_length": LONGEST},
    "config.json": {"max_position_embeddings": 512},
}


def write_model(folder: Path, **changed: Any) -> Path:
    for name, content in {**FILES, **changed}.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder
