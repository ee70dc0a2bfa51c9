"""The page of csvae-hub as a Hugging Face Space."""

from csvae_hub.demo import build, start

page = build("celeba-128")

if __name__ == "__main__":
    start(page, host="0.0.0.0")  # a Space's own door is in front of it
    page.block_thread()
