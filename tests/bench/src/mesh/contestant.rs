//! Who is measured, and in what order.

/// A way for a call to get from a client to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Contestant {
    /// tonic's client with one Channel, and tonic's server: as people use it.
    Tonic,
    /// The mesh on both sides.
    Mesh,
    /// As many Channels as the mesh has opened connections, and tonic's server.
    TonicMany,
    /// tonic, with an HAProxy on each side.
    Haproxy,
    /// tonic, with an Envoy on each side.
    Envoy,
}

impl Contestant {
    pub(crate) const ALL: [Contestant; 5] = [
        Contestant::Tonic,
        Contestant::Mesh,
        Contestant::TonicMany,
        Contestant::Haproxy,
        Contestant::Envoy,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Contestant::Tonic => "tonic, one Channel",
            Contestant::Mesh => "the mesh",
            Contestant::TonicMany => "tonic, as many Channels as the mesh has connections",
            Contestant::Haproxy => "tonic, HAProxy on both sides",
            Contestant::Envoy => "tonic, Envoy on both sides",
        }
    }
}

/// All of them, each round begun by another one; the mesh stays before those who need to know its connections.
pub(crate) fn order(round: usize) -> [Contestant; Contestant::ALL.len()] {
    let mut all = Contestant::ALL;
    all.rotate_left(round % Contestant::ALL.len());
    let place = |wanted| all.iter().position(|contestant| *contestant == wanted);
    if let (Some(mesh), Some(many)) = (place(Contestant::Mesh), place(Contestant::TonicMany))
        && many < mesh
    {
        all.swap(mesh, many);
    }
    all
}

/// What a call is protected by between the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Security {
    /// Nothing.
    Plain,
    /// TLS, with a certificate from either side.
    Mtls,
}

impl Security {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Security::Plain => "without TLS",
            Security::Mtls => "with mTLS",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_has_everybody_and_the_mesh_before_those_who_copy_it() {
        let mut first = Vec::new();
        for round in 0..Contestant::ALL.len() {
            let order = order(round);
            let place = |wanted| order.iter().position(|contestant| *contestant == wanted);
            assert!(Contestant::ALL.iter().all(|each| place(*each).is_some()));
            assert!(place(Contestant::Mesh) < place(Contestant::TonicMany));
            first.push(order[0]);
        }
        first.sort_unstable();
        first.dedup();
        assert!(first.len() >= 4, "{first:?}");
    }
}
