"""A Hugging Face folder as a GGUF file and back: names, types and tokenizer as llama.cpp has them."""
