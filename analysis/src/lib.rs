//! Questions asked of the model, and their records.
//!
//! [`capture`] runs audio through a model and puts what it finds at chosen sites into a [`store`]; [`input`] says which
//! files, [`record`] keeps how it was done, [`journal`] what of it is done, [`time`] says when a position is; [`rows`] reads activations that other programs
//! wrote; [`sae_stats`] says how well an autoencoder reconstructs, [`alignment`] at which site it does so best; [`features`] asks
//! what the features of a store do. The crate prints nothing and ends no process: [`Category`] tells a command line which exit
//! code an error deserves.

pub mod alignment;
pub mod capture;
mod error;
pub mod features;
pub mod input;
pub mod journal;
pub mod record;
pub mod rows;
pub mod sae_stats;
pub mod store;
pub mod time;

pub use error::{AnalysisError, Category, Result};
