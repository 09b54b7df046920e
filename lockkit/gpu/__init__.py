"""GPUs: what is known of the cards of this host. The extra ``gpu`` brings the library for NVIDIA's."""
