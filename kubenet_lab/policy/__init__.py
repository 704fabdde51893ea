"""Network policies: what they say (`evaluate`), and what an agent programs for them (`rules`): two separate roads."""
