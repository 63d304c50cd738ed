//! Bytes on their way from a device to the host.

use crate::backend::DeviceError;
use std::fmt;

/// A copy to the host that was asked for. It brings what the range held then, whatever is asked of the device since.
///
/// Dropped, it brings nothing; a device may wait until it is done with it.
pub struct Download(Way);

/// What waits for the bytes, and returns them.
type Arrival = Box<dyn FnOnce() -> Result<Vec<u8>, DeviceError> + Send>;

enum Way {
    Here(Vec<u8>),
    Coming(Arrival),
}

impl Download {
    /// Bytes that are on the host already.
    pub fn here(bytes: Vec<u8>) -> Self {
        Self(Way::Here(bytes))
    }

    /// Bytes that `arrival` waits for and returns.
    pub fn coming(arrival: impl FnOnce() -> Result<Vec<u8>, DeviceError> + Send + 'static) -> Self {
        Self(Way::Coming(Box::new(arrival)))
    }

    /// Whether the bytes were on the host when the download was asked for, so that nothing is gained by finishing it late.
    pub fn is_here(&self) -> bool {
        matches!(self.0, Way::Here(_))
    }

    /// The bytes, as soon as they are here. Other threads may use the device meanwhile.
    ///
    /// # Errors
    /// A device that failed, in this or in what was asked of it before.
    pub fn finish(self) -> Result<Vec<u8>, DeviceError> {
        match self.0 {
            Way::Here(bytes) => Ok(bytes),
            Way::Coming(arrival) => arrival(),
        }
    }
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Way::Here(bytes) => write!(f, "Download({} bytes)", bytes.len()),
            Way::Coming(_) => f.write_str("Download(under way)"),
        }
    }
}
