"""Hugging Face models of text: the settings of their configurations."""

from __future__ import annotations

from typing import Any

from tests.nets.transformers_row import VOCABULARY, Net

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GROUPED = {**SIZES, "num_key_value_heads": 2, "head_dim": 8}
SEQ2SEQ: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
}
_T5: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
}
_GPT = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

TEXT: dict[str, Net] = {
    # text encoders
    "bert": Net("BertForMaskedLM", SIZES),
    "bert-classifier": Net("BertForSequenceClassification", {**SIZES, "num_labels": 3}),
    "roberta": Net("RobertaForTokenClassification", {**SIZES, "num_labels": 5}),
    "xlm-roberta": Net("XLMRobertaForMaskedLM", SIZES),
    "xlm": Net(
        "XLMModel",
        {"vocab_size": VOCABULARY, "emb_dim": 32, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64},
    ),
    "camembert": Net("CamembertForQuestionAnswering", SIZES),
    "distilbert": Net(
        "DistilBertForMaskedLM",
        {
            "vocab_size": VOCABULARY,
            "dim": 32,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 64,
            "max_position_embeddings": 64,
        },
    ),
    "albert": Net("AlbertForMaskedLM", {**SIZES, "embedding_size": 16}),
    "deberta": Net("DebertaModel", {**SIZES, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    "deberta-v2": Net(
        "DebertaV2ForMaskedLM",
        {
            **SIZES,
            "relative_attention": True,
            "pos_att_type": ["c2p", "p2c"],
            "position_buckets": 8,
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
        },
    ),
    "electra": Net("ElectraForPreTraining", {**SIZES, "embedding_size": 16}),
    "ernie": Net("ErnieModel", SIZES),
    "mobilebert": Net("MobileBertForMaskedLM", {**SIZES, "embedding_size": 16, "intra_bottleneck_size": 16}),
    "squeezebert": Net("SqueezeBertModel", {**SIZES, "embedding_size": 32}),
    "mpnet": Net("MPNetForMaskedLM", SIZES),
    "big_bird": Net("BigBirdModel", {**SIZES, "attention_type": "original_full"}),
    "funnel": Net(
        "FunnelModel",
        {"vocab_size": VOCABULARY, "block_sizes": [1, 1], "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64},
        "fixed text",
    ),
    "xlnet": Net("XLNetModel", {"vocab_size": VOCABULARY, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}),
    "nystromformer": Net(
        "NystromformerModel",
        {**SIZES, "num_landmarks": 12, "segment_means_seq_len": 12, "conv_kernel_size": 5},
        "fixed ids",
    ),
    "fnet": Net("FNetModel", SIZES, "ids"),
    "convbert": Net("ConvBertModel", {**SIZES, "embedding_size": 32, "conv_kernel_size": 3}),
    "roformer": Net("RoFormerForMaskedLM", SIZES),
    "rembert": Net("RemBertModel", {**SIZES, "input_embedding_size": 16}),
    "ibert": Net("IBertModel", SIZES),
    "modernbert": Net("ModernBertForMaskedLM", {**SIZES, "global_attn_every_n_layers": 2, "local_attention": 4}),
    "nomic_bert": Net("NomicBertModel", SIZES),
    "eurobert": Net("EuroBertModel", _GROUPED),
    "esm": Net("EsmModel", {**SIZES, "position_embedding_type": "rotary", "mask_token_id": 3}),
    "canine": Net(
        "CanineModel",
        {
            **SIZES,
            "downsampling_rate": 2,
            "num_hash_buckets": 64,
            "local_transformer_stride": 4,
            "max_position_embeddings": 128,
        },
        "fixed text",
    ),
    "yoso": Net("YosoModel", {**SIZES, "use_expectation": True}),
    "layoutlm": Net("LayoutLMModel", {**SIZES, "max_2d_position_embeddings": 64}, "layout"),
    # text decoders
    "gpt2": Net("GPT2LMHeadModel", _GPT),
    "gpt_neo": Net(
        "GPTNeoForCausalLM",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 4,
            "max_position_embeddings": 64,
        },
    ),
    "gpt_neox": Net("GPTNeoXForCausalLM", SIZES),
    "gptj": Net("GPTJForCausalLM", {**_GPT, "rotary_dim": 4}),
    "gpt_bigcode": Net("GPTBigCodeForCausalLM", _GPT),
    "codegen": Net("CodeGenForCausalLM", {**_GPT, "rotary_dim": 4}),
    "ctrl": Net(
        "CTRLModel", {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "dff": 64, "n_positions": 64}
    ),
    "opt": Net("OPTForCausalLM", {**SIZES, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "bloom": Net("BloomForCausalLM", {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "xglm": Net(
        "XGLMForCausalLM",
        {
            "vocab_size": VOCABULARY,
            "d_model": 32,
            "ffn_dim": 64,
            "num_layers": 2,
            "attention_heads": 4,
            "max_position_embeddings": 64,
        },
    ),
    "biogpt": Net("BioGptForCausalLM", SIZES),
    "llama": Net("LlamaForCausalLM", _GROUPED),
    "mistral": Net("MistralForCausalLM", {**_GROUPED, "sliding_window": 4}),
    "mixtral": Net(
        "MixtralForCausalLM",
        {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2, "experts_implementation": "batched_mm"},
    ),
    "qwen2": Net("Qwen2ForCausalLM", _GROUPED),
    "qwen3": Net("Qwen3ForCausalLM", _GROUPED),
    "gemma": Net("GemmaForCausalLM", _GROUPED),
    "gemma2": Net("Gemma2ForCausalLM", {**_GROUPED, "sliding_window": 4}),
    "gemma3": Net("Gemma3ForCausalLM", {**_GROUPED, "sliding_window": 4}),
    "phi": Net("PhiForCausalLM", SIZES),
    "phi3": Net("Phi3ForCausalLM", {**SIZES, "num_key_value_heads": 2}),
    "falcon": Net("FalconForCausalLM", {**SIZES, "multi_query": True}),
    "falcon-alibi": Net("FalconForCausalLM", {**SIZES, "alibi": True, "new_decoder_architecture": False}),
    "stablelm": Net("StableLmForCausalLM", {**SIZES, "num_key_value_heads": 2}),
    "olmo": Net("OlmoForCausalLM", SIZES),
    "olmo2": Net("Olmo2ForCausalLM", SIZES),
    "cohere": Net("CohereForCausalLM", _GROUPED),
    "granite": Net("GraniteForCausalLM", _GROUPED),
    "smollm3": Net("SmolLM3ForCausalLM", _GROUPED),
    "starcoder2": Net("Starcoder2ForCausalLM", _GROUPED),
    "persimmon": Net("PersimmonForCausalLM", SIZES),
    "nemotron": Net("NemotronForCausalLM", _GROUPED),
    "helium": Net("HeliumForCausalLM", _GROUPED),
    "glm": Net("GlmForCausalLM", _GROUPED),
    "mamba": Net(
        "MambaForCausalLM",
        {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
        "fixed text",
    ),
    # encoders and decoders of text
    "t5": Net("T5ForConditionalGeneration", _T5, "seq2seq"),
    "mt5": Net("MT5ForConditionalGeneration", _T5, "seq2seq"),
    "t5-encoder": Net("T5EncoderModel", _T5),
    "bart": Net("BartForConditionalGeneration", SEQ2SEQ, "seq2seq"),
    "mbart": Net("MBartForConditionalGeneration", SEQ2SEQ, "seq2seq"),
    "marian": Net("MarianMTModel", SEQ2SEQ, "seq2seq"),
    "pegasus": Net("PegasusForConditionalGeneration", SEQ2SEQ, "seq2seq"),
    "blenderbot": Net("BlenderbotForConditionalGeneration", SEQ2SEQ, "seq2seq"),
    "blenderbot-small": Net("BlenderbotSmallForConditionalGeneration", SEQ2SEQ, "seq2seq"),
    "m2m_100": Net("M2M100ForConditionalGeneration", SEQ2SEQ, "seq2seq"),
    "prophetnet": Net(
        "ProphetNetForConditionalGeneration",
        {
            **{k: v for k, v in SIZES.items() if not k.startswith("num")},
            "num_encoder_layers": 2,
            "num_decoder_layers": 2,
            "num_encoder_attention_heads": 4,
            "num_decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
        },
        "fixed seq2seq",
    ),
}

REFUSED: dict[str, tuple[Net, str]] = {
    "longformer": (Net("LongformerModel", {**SIZES, "attention_window": 4, "onnx_export": True}), "if is_global_attn:"),
    "led": (
        Net(
            "LEDForConditionalGeneration",
            {
                **SEQ2SEQ,
                "attention_window": 4,
                "max_encoder_position_embeddings": 64,
                "max_decoder_position_embeddings": 64,
            },
            "seq2seq",
        ),
        "hidden_states = hidden_states.view(",
    ),
    "funnel-of-any-length": (
        Net("FunnelModel", {"vocab_size": VOCABULARY, "block_sizes": [1, 1], "d_model": 32, "n_head": 4, "d_head": 8}),
        "pos = list(range(seq_len))",
    ),
    "mixtral-grouped": (
        Net("MixtralForCausalLM", {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}),
        "experts_forward",
    ),
}
"""Models that decide by values, or count over a length in Python, and a piece of the line that does."""
