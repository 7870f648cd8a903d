//! The API objects as people write them, converted to the model.
