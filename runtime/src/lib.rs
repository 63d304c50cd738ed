//! Where tensors live and how plans run
