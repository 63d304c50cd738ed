//! Questions asked of the model, and their records
