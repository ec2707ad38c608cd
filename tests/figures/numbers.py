from __future__ import annotations

from collections.abc import Iterator

from tests.figures import results, row

SETTINGS = [
    "of scale 0.3 for each",
    r"within 1% of the true entropy|within 0\.02 nats \(KL\)|within 1 s; at most 5% more",  # bounds of tests
    r"\|(?:losses in float32\|)?at most 1e-[58] apart|\(1e-5\)|1e-9 relative",
    r"\|(?:data|tokenizer|model)\|.*",  # of the demo's recipe
    r"\|training killed ten times and resumed\|.*",
    r"coupling 0\.4",
    r"killed five times at random",
]


def figures() -> Iterator[str]:
    yield from at_a_glance()
    yield from demo()
    yield from ising()
    yield from cached_sampling()
    yield from tokenizers()
    yield from latent_cache()


def at_a_glance() -> Iterator[str]:
    demo, likelihood = results("demo"), results("likelihood_digits")
    seconds = demo["seconds"]["this_command"]
    yield f"|make demo, after the installation|{seconds / 60:.0f} minutes on one core ({seconds:.0f} s)|"
    every, few = (found["accuracy"] for found in demo["results"])
    yield (
        f"|generated digits recognized as their label|{every:.1%} at 49 steps, {few:.1%} at 8 steps (the classifier "
        f"recognizes {demo['judge_accuracy_on_real_held_out']:.1%} of real digits)|"
    )
    yield f"(zero-shot)|{likelihood['zero_shot']['accuracy']:.1%} (the demo's model, raster order)|"
    yield f"|evaluating 5,000 samples with every metric|{results('evaluation_cost')['ratio']:.2f} times the time"
    yield f"|TAEF2, imported|{results('taef2')['psnr']['mean']:.2f} dB on 100 photos at 256×256|"
    yield f"50,000 images|{results('latent_cache')['ratio']:,.0f} times as fast; a cache job killed five times writes"
    ratios = results("sampling_baselines")["ratios"]
    one, eight = (
        row(ratios, what="images/s of cross, 16 steps / next_token", batch=batch)["value"] for batch in (1, 8)
    )
    yield f"|{one:.1f} times the images per second at batch 1, {eight:.1f} times at batch 8|"
    masked = row(ratios, what="images/s of cross, 64 steps / masked at equal steps", batch=8)["value"]
    yield f"runs in full at every step, batch 8|{masked:.0f} times|"
    cross = row(results("cached_sampling")["rows"], head="cross")
    yield f"|sampling with the cache against without, 256 cells one by one|{cross['ratio']:.1f} times as fast|"


def demo() -> Iterator[str]:
    found = results("demo")
    every, few = found["results"]
    assert (every["sampling"]["steps"], few["sampling"]["steps"], found["images"]) == (49, 8, 1000)
    one, other = (of["sampling"] for of in (every, few))
    yield f"heptapod demo on one thread, with other work on the second core: {found['seconds']['this_command']:.0f} s."
    last = found["last"]
    yield (
        f"|held-out NLL|{last['val_nats_per_token']:.3f} nats per token, in mixed order (the last weights, step "
        f"{last['step']:,})|"
    )
    shared = f"of 1,000, temperature {one['temperature']}, seed 0, 100 per class|"
    yield f"{one['token_order']} order|{every['accuracy']:.1%} {shared}"
    yield f"{other['token_order']} order|{few['accuracy']:.1%} of 1,000, temperature {other['temperature']}"
    yield f"|the classifier on real held-out digits|{found['judge_accuracy_on_real_held_out']:.1%} (a small"
    yield (
        f"|sampling, batch 250, float32, one thread|{every['images_per_second']:.0f} images/s at 49 steps, "
        f"{few['images_per_second']:.0f} images/s at 8 steps|"
    )


def ising() -> Iterator[str]:
    found = results("ising")
    yield f"random order for {found['settings']['steps']:,} steps of 128 fresh samples"
    for name, head in (
        ("cross (next cells, as many far cells)", "cross"),
        ("global (4 prefixes, all targets)", "global"),
    ):
        one = found["heads"][head]
        yield (
            f"|{name}|{one['entropy']:.3f} nats|{one['nll']:.3f} nats|{one['excess']:.1%}|"
            f"{one['marginal_kl']:.4f} nats|{one['posterior_kl']:.4f} nats|"
        )


def cached_sampling() -> Iterator[str]:
    for name, head in (
        ("cross", "cross"),
        ("next_token", "next_token"),
        ("local (window 5)", "local"),
        ("global", "global"),
    ):
        found = row(results("cached_sampling")["rows"], head=head)
        yield (
            f"|{name}|{found['cached_seconds']:.2f} s|{found['uncached_seconds']:.2f} s|{found['ratio']:.1f}|"
            f"{found['largest_logit_difference']:.1e}|"
        )


def tokenizers() -> Iterator[str]:
    found = results("tokenizer_cifar10_vae")
    yield f"mean PSNR {found['psnr']['mean']:.2f} dB on the {found['images']:,} test images."
    yield f"with the same number of components reaches {found['baseline']['psnr']:.2f} dB:"
    found = results("taef2")
    psnr = found["psnr"]
    yield f"mean PSNR {psnr['mean']:.2f} dB (min {psnr['min']:.2f}, max {psnr['max']:.2f}), latents of 32×32×32."


def latent_cache() -> Iterator[str]:
    found = results("latent_cache")
    assert (found["byte_equal_after_kills"], found["kills"], found["different_codes"]) == (True, 5, 0)
    yield f"|{found['codes']:,} codes, none different|"
    yield f"|decoding and tokenizing on the fly|{found['images_per_second_on_the_fly']:.0f} images/s|"
    yield f"|{found['images_per_second_from_the_cache']:,.0f} images/s: {found['ratio']:,.0f} times as fast|"
