//! Kernel definitions: formulas, references, WGSL text, plans
