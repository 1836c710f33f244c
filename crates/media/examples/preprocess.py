"""What preprocess.rs prints, of transformers: PYTHON preprocess.py MODEL_DIR FILE… (with transformers, torchvision, pillow)."""

import io
import sys
import time

import torch
from PIL import Image
from transformers import AutoImageProcessor

RUNS = 20


def median(times):
    return 1e3 * sorted(times)[len(times) // 2]


torch.set_num_threads(2)
processor = AutoImageProcessor.from_pretrained(sys.argv[1])
for file in sys.argv[2:]:
    data = open(file, "rb").read()
    decoding, cutting = [], []
    for _ in range(RUNS):
        start = time.perf_counter()
        image = Image.open(io.BytesIO(data)).convert("RGB")
        decoding.append(time.perf_counter() - start)
        start = time.perf_counter()
        processor(images=[image], return_tensors="pt")
        cutting.append(time.perf_counter() - start)
    decode, cut = median(decoding), median(cutting)
    print(f"{file}: {type(processor).__name__}, decoding {decode:.1f}ms, patches {cut:.1f}ms, both {decode + cut:.1f}ms")
