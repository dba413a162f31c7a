"""Names of settings in TRL, verl and OpenRLHF with ours for the same, and those that this project does not offer."""

import re
from collections.abc import Container

_OURS = {
    "rollout.problems_per_step": "train_batch_size rollout_batch_size gradient_accumulation_steps generation_batch_size "
    "ppo_mini_batch_size",
    "rollout.completions_per_problem": "num_generations n_samples_per_prompt rollout.n num_samples_per_prompt group_size",
    "rollout.max_prompt_tokens": "max_prompt_length prompt_max_len",
    "rollout.max_completion_tokens": "max_completion_length max_response_length generate_max_len max_new_tokens response_length",
    "engine.max_sequences": "max_num_seqs",
    "engine.max_batched_tokens": "max_num_batched_tokens",
    "engine.gpu_memory_fraction": "vllm_gpu_memory_utilization gpu_memory_utilization",
    "engine.tensor_parallel": "vllm_tensor_parallel_size tensor_model_parallel_size tensor_parallel_size",
    "rollout.sleep_while_learning": "vllm_enable_sleep vllm_enable_sleep_mode free_cache_engine",
    "rollout.staleness": "async_train async_queue_size max_staleness",
    "rollout.replace_uniform_groups": "dynamic_filtering filter_groups",
    "learner.updates_per_batch": "num_steps_per_rollout",
    "learner.learning_rate": "lr actor_learning_rate",
    "learner.schedule": "lr_scheduler_type lr_scheduler lr_warmup_style warmup_style",
    "learner.warmup_share": "warmup_ratio lr_warmup_ratio lr_warmup_steps_ratio warmup_steps lr_warmup_steps",
    "learner.final_share": "min_lr_ratio min_lr",
    "learner.max_grad_norm": "grad_clip max_norm clip_grad",
    "learner.adam_betas": "adam_beta1 adam_beta2 betas",
    "learner.optimizer": "optim optimizer_type adam_offload optimizer_offload offload_optimizer use_8bit_adam",
    "learner.offload_reference": "ref_reward_offload ref_offload offload_ref",
    "learner.offload_activations": "activation_offloading enable_activation_offload activation_offload cpu_checkpointing",
    "learner.micro_batch_sequences": "per_device_train_batch_size micro_train_batch_size ppo_micro_batch_size "
    "ppo_micro_batch_size_per_gpu",
    "learner.micro_batch_tokens": "ppo_max_token_len_per_gpu train_max_tokens_per_gpu",
    "learner.zero_stage": "deepspeed deepspeed_config",
    "learner.lora.rank": "lora_rank lora_r lora_dim use_peft use_lora peft_config lora lora.rank lora.r",
    "learner.lora.alpha": "lora_alpha lora.alpha",
    "learner.lora.layers": "target_modules lora_target_modules",
    "learner.fused_kernels": "use_liger_kernel use_liger_loss use_liger",
    "loss.kind": "loss_type policy_loss_type loss_mode",
    "loss.advantage": "advantage_estimator adv_estimator scale_rewards rloo reinforce_plus_plus",
    "loss.gate_temperature": "tau_pos sapo_temperature_pos",
    "loss.gate_temperature_negative": "tau_neg sapo_temperature_neg",
    "loss.truncated_completions": "mask_truncated_completions overlong_filter",
    "loss.entropy_weight": "entropy_coeff entropy_coef entropy_loss_coef",
    "loss.teacher.path": "teacher teacher_model teacher_model_name_or_path opd_teacher_load teacher_model_path",
    "loss.teacher.weight": "opd_kl_coef kl_penalty_coef",
    "loss.kl_beta": "beta kl_coef init_kl_coef kl_loss_coef",
    "loss.clip_epsilon": "epsilon eps_clip clip_ratio clip_ratio_low eps_clip_low",
    "loss.clip_epsilon_high": "epsilon_high clip_ratio_high eps_clip_high",
    "loss.correction": "vllm_importance_sampling_correction enable_vllm_is_correction",
    "loss.normalization": "loss_agg_mode",
    "rewards.weights": "reward_funcs reward_weights",
    "model.path": "model_name_or_path pretrain model_name",
    "model.dtype": "torch_dtype bf16 param_dtype",
    "data.path": "dataset_name dataset prompt_data train_files dataset_path",
    "data.subset": "dataset_config dataset_config_name",
    "data.split": "dataset_train_split prompt_split",
    "data.columns.problem": "input_key prompt_key dataset_prompt_column",
    "data.columns.answer": "label_key answer_key",
    "evaluation.path": "val_files eval_dataset",
    "evaluation.every_steps": "test_freq eval_interval",
    "evaluation.samples": "val_kwargs.n eval_n_samples_per_prompt",
    "run.steps": "max_steps total_training_steps num_train_epochs num_episodes total_epochs num_rollout",
    "run.name": "run_name experiment_name",
    "run.folder": "output_dir default_local_dir save_path ckpt_path",
    "checkpoint.every_steps": "save_steps save_freq save_interval",
    "checkpoint.keep_last": "save_total_limit max_ckpt_num max_actor_ckpt_to_keep",
    "placement.num_learner_gpus": "n_gpus_per_node num_processes actor_num_gpus_per_node",
    "placement.num_rollout_gpus": "vllm_num_engines rollout_num_gpus engines.count",
    "placement.colocated": "vllm_mode colocate_all_models colocate colocate_actor_ref",
    "placement.cpus_per_slot": "engines.cpus",
    "--resume": "resume_from_checkpoint load_checkpoint resume_mode",
}
_BY_NAME = {name: ours for ours, names in _OURS.items() for name in names.split()}

_NOT_OFFERED = {
    "num_iterations ppo_epochs": "no completion is learned from twice; learner.updates_per_batch splits a step's groups over "
    "several updates",
    "qlora": "adapters (learner.lora.rank) are trained on a base in bfloat16 or float32, not in 4 bits",
    "lora_dropout": "adapters have no dropout, with which learner and engines would differ",
    "wandb swanlab mlflow report_to use_tensorboard": "figures go to metrics.jsonl and tensorboard/ in the run's folder, "
    "to no other tracker",
    "critic value_model vf_coef gae lambd gamma": "GRPO compares the completions of a problem, there is no critic",
    "sft": "there is no supervised fine-tuning, begin from a model that follows the prompt",
    "dpo kto": "the losses are those of loss.kind, all on groups of completions",
    "reward_model reward_pretrain rm": "rewards are computed from the answer (rewards.weights), not by a trained reward model",
    "image images pixels vision multimodal": "problems are text only",
    "fp16 float16 half": "model.dtype takes bfloat16 and float32, not float16",
    "load_in_4bit load_in_8bit bnb": "models are trained in bfloat16 or float32 (engines may be in 8 bits: rollout.quantization)",
    "push_to_hub hub_model_id": "policies stay in the run's folder, ready for huggingface_hub to upload",
    "trust_remote_code": "code that comes with a model is never run",
    "megatron pipeline_model_parallel_size context_parallel_size sequence_parallel_size": "the learner is split by "
    "DeepSpeed ZeRO alone (learner.zero_stage)",
}
_REASONS = {name: reason for names, reason in _NOT_OFFERED.items() for name in names.split()}


def not_offered(dotted: str) -> str | None:
    """Why there is no such setting, by a part of another trainer's name."""
    parts = _parts(dotted)
    words = [*parts, *(word for part in parts for word in part.split("_"))]
    about = [*words, *(name for name in _REASONS if "_" in name and any(part.startswith(name) for part in parts))]
    return next((_REASONS[name] for name in about if name in _REASONS), None)


def our_name(dotted: str, known: Container[str]) -> str | None:
    """Our field or option for another trainer's name, among the `known`."""
    parts = _parts(dotted)
    names = [".".join(parts[first:]) for first in range(len(parts))]
    return next((_BY_NAME[name] for name in names if _BY_NAME.get(name) in known), None)


def _parts(dotted: str) -> list[str]:
    return re.sub(r"-", "_", dotted.lower()[-200:]).strip("_").split(".")
