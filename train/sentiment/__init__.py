"""Multimodal sentiment: CorrKD and, in `debiasing`, base models whose bias is taken away."""
