//! Every check and chore of the repository as one command: `cargo xtask --help`.
//!
//! One module per subcommand. It depends on no crate of the shop and on as little else as possible, so
//! that it builds in seconds; what needs a running shop starts the binary like anybody else would.
//! Heavy tools (Node.js, Chromium, schemathesis) are never required to build or test: what cannot be
//! installed makes a check say SKIPPED by name.

pub mod affected;
pub mod bench;
pub mod check;
pub mod checkout;
pub mod debian;
pub mod docs;
pub mod faults;
pub mod fuzz;
pub mod image;
pub mod k8s;
pub mod k8s_smoke;
pub mod mutants;
pub mod new_service;
pub mod pr_light;
pub mod process;
pub mod release;
pub mod roll;
pub mod semver;
pub mod servers;
pub mod services;
pub mod shop;
pub mod test;
pub mod tour;
pub mod up;
pub mod verify;
