//! Where programs are attached, and the names of their pins.

use std::path::Path;

use super::file_name;

/// Where on an interface a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::l4) enum Hook {
    Xdp,
    Tcx,
    Clsact,
}

impl Hook {
    pub(super) const ALL: [Self; 3] = [Self::Xdp, Self::Tcx, Self::Clsact];

    const fn prefix(self) -> &'static str {
        match self {
            Self::Xdp => "link-",
            Self::Tcx => "tcx-",
            Self::Clsact => "clsact-",
        }
    }

    /// The hook and the interface that a pin of this name is for.
    pub(super) fn parse(path: &Path) -> Option<(Self, String)> {
        let name = file_name(path)?;
        Self::ALL.into_iter().find_map(|hook| {
            let interface = name.strip_prefix(hook.prefix())?;
            Some((hook, interface.replace(DOT, ".").replace(PERCENT, "%")))
        })
    }

    /// The name of a pin. bpffs takes no dots, which names of VLAN interfaces have.
    pub(super) fn file(self, interface: &str) -> String {
        let interface = interface.replace('%', PERCENT).replace('.', DOT);
        format!("{}{interface}", self.prefix())
    }
}

const PERCENT: &str = "%25";
const DOT: &str = "%2e";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_an_interface_comes_back() {
        for name in ["eth0", "eth0.100", "a%2eb", "%25", "link-tcx-0"] {
            for hook in Hook::ALL {
                let file = hook.file(name);
                assert!(!file.contains('.'), "{file}");
                let parsed = Hook::parse(&Path::new("/pins").join(file));
                assert_eq!(parsed, Some((hook, name.to_owned())));
            }
        }
        assert_eq!(Hook::parse(Path::new("/pins/PORTS")), None);
    }
}
