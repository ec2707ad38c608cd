#!/usr/bin/env bash
# From a folder of ImageNet to a trained and evaluated model on one node. After an interruption the same command
# resumes.
#
#   IMAGENET=/data/imagenet GPUS=8 scripts/imagenet256.sh imagenet256_b_vq
#
# IMAGENET holds train/ and val/, one folder per class (or WebDataset shards: give their paths as TRAIN and VAL).
set -euo pipefail

recipe="${1:?name a recipe: imagenet256_{b,l,h}_{vq,vae} or one of them with _cross}"
shift
gpus="${GPUS:-8}"
train="${TRAIN:-${IMAGENET:?the folder of ImageNet}/train}"
val="${VAL:-${IMAGENET:-}/val}"
kind="$(echo "$recipe" | cut -d _ -f 3)"  # vq or vae
tokenizer="${TOKENIZER:-runs/tokenizer_imagenet256_${kind}_f16}"
several=(torchrun --standalone --nproc_per_node "$gpus" --max_restarts 3 -m heptapod)

heptapod plan "$recipe" --gpus "$gpus" --gpu "${GPU:-h100}"

# 1. The tokenizer, unless TOKENIZER names one (custom or imported: heptapod import-tokenizer).
if [ -z "${TOKENIZER:-}" ]; then
    "${several[@]}" train-tokenizer "tokenizer_imagenet256_${kind}_f16" --data "$train" --data.validation_path "$val" \
        --out "$tokenizer"
fi

# 2. The images as tokens, once.
"${several[@]}" tokenize "$tokenizer" --data "$train" --image_size 256 --flip --out "caches/imagenet256_${kind}"
"${several[@]}" tokenize "$tokenizer" --data "$val" --image_size 256 --out "caches/imagenet256_${kind}_val"

# 3. The model.
"${several[@]}" train "$recipe" "$@"

# 4. 50,000 samples, measured against the training images with Inception's features.
if [ ! -f references/imagenet256.safetensors ]; then
    "${several[@]}" reference "$train" --image_size 256 --inception "${INCEPTION:-download}" \
        --out references/imagenet256.safetensors
fi
"${several[@]}" evaluate "runs/$recipe" --reference references/imagenet256.safetensors \
    --inception "${INCEPTION:-download}" --count 50000 --out "evaluations/$recipe"
