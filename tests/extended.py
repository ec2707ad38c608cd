"""The tests that `make test` leaves to `make test-rest`, and the nightly ones; all together are every test.

An entry is a file, a test, or one case of a test. `tests/conftest.py` marks what the entries name with `extended` or
`nightly`, and `tests/test_suite.py` fails where an entry names nothing.
"""

EXTENDED = frozenset(
    {
        # Models trained until they match an exact distribution.
        "tests/invariants/test_ising.py::test_learns_the_exact_distribution[cross]",
        "tests/training/test_tokenizer_task.py::test_every_kind_learns_to_reconstruct[fsq]",
        "tests/training/test_tokenizer_task.py::test_every_kind_learns_to_reconstruct[vae]",
        # Runs that are killed, cut off or out of disk space. Quick: one exact resume per task.
        "tests/cli/test_interrupts.py::test_ctrl_c_saves",
        "tests/cli/test_tokenizer_commands.py::test_killed_five_times_and_resumed",
        "tests/distributed/test_torchrun.py",
        "tests/training/test_disk_full.py",
        "tests/training/test_kill.py",
        # Damaged inputs. Quick: the harness itself, and the damage of tests/damage.py.
        "tests/fuzz/test_fuzz.py::test_a_thousand_inputs",
        "tests/utils/test_files.py::test_two_processes_write_one_file",
        # Precision, resuming and published files. Quick: bfloat16, codes, more steps, every form of a folder.
        "tests/inference/test_precision.py::test_half_precision_is_the_same_model_rounded[vectors-dtype1]",
        "tests/inference/test_precision.py::test_the_default_precision_of_torch_changes_nothing[vectors]",
        "tests/tokenizers/test_published_files.py::test_an_autoencoder_in_half_precision_shards",
        "tests/training/test_resume.py::test_a_cosine_that_becomes_longer_is_said",
        "tests/training/test_resume.py::test_a_tokenizer_trains_on_until_a_model_is_trained_on_its_tokens",
        "tests/training/test_resume.py::test_another_tokenizer_by_another_path_is_refused",
        # The report of a GPU. Quick: its parts, and what a failing one leaves.
        "tests/test_gpu_report.py::test_a_dry_run",
        # Plans. Quick: the docs against the file of plans.
        "tests/test_figures.py::test_plans_are_those_of_the_planner",
        # Several processes. Quick: DDP and FSDP2 against one process, evaluation on two ranks.
        "tests/cli/test_tokenize_processes.py",
        "tests/inference/test_pipeline.py::test_two_processes_draw_the_images_of_one",
        "tests/training/test_parallel.py::test_codebooks_stay_equal_to_the_bit_over_200_steps",
        # The studio under load and in every page of a browser. Quick: generate, ask, download, in-paint.
        "tests/studio/test_browser.py::test_a_class_among_many_stays_unless_another_is_chosen",
        "tests/studio/test_browser.py::test_a_fork_keeps_what_was_read_and_can_be_left_again",
        "tests/studio/test_browser.py::test_a_phone_shows_every_page_in_its_width",
        "tests/studio/test_browser.py::test_ask_a_cell_pin_and_reproduce[vectors]",
        "tests/studio/test_browser.py::test_compare_two_models",
        "tests/studio/test_browser.py::test_compare_two_settings",
        "tests/studio/test_browser.py::test_everything_on_generate_by_keyboard",
        "tests/studio/test_browser.py::test_who_waits_is_told_so_and_whoever_stops_makes_room",
        "tests/studio/test_browser_edit.py::test_brush_undo_invert_and_use_the_result",
        "tests/studio/test_browser_edit.py::test_outpaint_places_the_image",
        "tests/studio/test_browser_edit.py::test_the_mask_by_keyboard",
        "tests/studio/test_browser_races.py",
        "tests/studio/test_load.py::test_malformed_requests_are_all_refused_and_the_server_goes_on",
        "tests/studio/test_load.py::test_memory_stays_flat_and_a_page_comes_at_once",
        # Sizes B to H, and what torch counts and allocates. Quick: the tiny size.
        "tests/distributed/test_sizes.py",
        "tests/tools/bench/test_sampling.py::test_every_model_has_its_rows",
        "tests/tools/bench/test_sampling.py::test_the_peak_grows_with_the_batch",
        "tests/tools/bench/test_training.py::test_the_peak_of_memory_is_near_the_plan",
        "tests/tools/planning/test_flops.py::test_b_is_what_torch_counts",
        "tests/tools/planning/test_flops.py::test_recomputed_are_the_blocks",
        "tests/tools/planning/test_flops.py::test_sampling_is_what_torch_counts",
        "tests/tools/planning/test_memory.py::test_a_step_without_contents_is_a_real_one",
        "tests/tools/planning/test_memory.py::test_attention_on_a_gpu_keeps_no_squares",
        "tests/tools/planning/test_memory.py::test_bfloat16_and_checkpointing_save_memory",
        "tests/tools/planning/test_memory.py::test_memory_is_linear_in_the_images",
        "tests/tools/planning/test_memory.py::test_the_smallest_accumulation_that_fits",
        "tests/tools/planning/test_memory.py::test_what_is_saved_by_autograds_hooks",
        "tests/tools/planning/test_plan.py::test_checkpointing_takes_time",
        "tests/tools/planning/test_plan.py::test_the_arithmetic_of_a_plan",
        # Published weights and compiled code.
        "tests/evaluation/test_features.py::test_efficientnet_recognises_photos",
        "tests/models/test_parts.py::test_compiled_model_gives_the_same_loss",
        "tests/sampling/test_global.py::test_compiled_blocks_draw_the_same_tokens",
        "tests/tokenizers/test_pretrained.py::test_published_files_that_do_not_fit",
        "tests/tokenizers/test_pretrained.py::test_taef2_reconstructs_photographs",
        "tests/training/test_trainer.py::test_compiled_training_gives_the_same_weights",
        # Commands at more than their smallest size: the docs run each command once in the quick part.
        "tests/cli/test_bench_command.py::test_bench_sampling_writes_json_and_markdown",
        "tests/test_package.py",
    }
)

TURNS = (
    # One to three minutes on one core. `make test-rest` runs one of them by turns, `make test-nightly` all.
    "tests/distributions/test_continuous.py::test_learns_a_mixture[diffusion-2]",
    "tests/distributions/test_continuous.py::test_learns_a_mixture[flow-16]",
    "tests/distributions/test_continuous.py::test_learns_a_mixture[diffusion-16]",
    "tests/distributions/test_continuous.py::test_learns_a_mixture[flow-2]",
    "tests/invariants/test_potts.py::test_learns_the_exact_distribution[cross]",
    "tests/invariants/test_ising.py::test_learns_the_exact_distribution[global]",
)

NIGHTLY = frozenset(
    {
        *TURNS,
        # After the training of the test above, or one of four minutes.
        "tests/invariants/test_potts.py::test_probabilities_of_all_states_sum_to_one[cross]",
        "tests/invariants/test_potts.py::test_samples_have_the_exact_pairs[cross]",
        "tests/invariants/test_potts.py::test_learns_the_exact_distribution[global]",
        "tests/invariants/test_potts.py::test_probabilities_of_all_states_sum_to_one[global]",
        "tests/invariants/test_potts.py::test_samples_have_the_exact_pairs[global]",
        # Ten and twenty minutes: too long for a turn.
        "tests/invariants/test_lattice.py::test_learns_the_exact_conditionals",
    }
)


def nightly_of(turn: int) -> str:
    """The nightly test whose turn it is."""
    return TURNS[turn % len(TURNS)]
