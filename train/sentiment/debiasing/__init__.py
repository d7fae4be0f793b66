"""De-biased base models, which `train.msa --debias` trains."""
