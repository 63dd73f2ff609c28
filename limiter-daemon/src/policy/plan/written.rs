//! Where a limit is written: its origin, as `limiterd explain` tells it.

use std::fmt;
use std::path::PathBuf;

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub file: PathBuf,
    /// From 1; 0: the file as a whole.
    pub line: u64,
    /// `Kind namespace/name`; `None`: the file is no resource.
    pub resource: Option<String>,
}

/// `limits.yaml:12 (BackendTrafficPolicy default/shop)`
impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        match &self.resource {
            Some(resource) => write!(f, " ({resource})"),
            None => Ok(()),
        }
    }
}
