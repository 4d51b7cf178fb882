//! `cargo xtask`: reads the command line and hands over to the library.

#[cfg(test)]
mod workflows;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{
    affected, bench, check, docs, faults, fuzz, image, k8s, k8s_smoke, mutants, new_service,
    pr_light, release, roll, semver, servers, test, tour, up, verify,
};

/// Every check and chore of the repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Formatting, lints and all tests; the light ones first.
    Test(test::Options),
    /// Lists the crates and areas that a change affects, by its files and the dependency graph.
    Affected(affected::Options),
    /// What a pull request is checked for at once: formatting, lints and light tests of what it affects.
    PrLight(pr_light::Options),
    /// Checks from outside: buf, grpcio, spectral, schemathesis, a browser. Each says RAN or SKIPPED.
    Verify(verify::Options),
    /// Breaks the code on purpose and lists what no test noticed (cargo-mutants).
    Mutants(mutants::Options),
    /// Compares the public API of the crates under mesh/ with a release (cargo-semver-checks).
    Semver(semver::Options),
    /// Runs the README's commands as printed and compares what they answer.
    Tour(tour::Options),
    /// Runs simulator, product, payment and edge as processes of their own, on private servers, until Ctrl-C.
    Up(up::Options),
    /// Asks a running shop for every invariant; by default the one of `cargo xtask up`.
    Check(check::Options),
    /// Writes a new service and wires it into everything.
    NewService(new_service::Options),
    /// Makes a release of image archives, pushes it, deploys it.
    Release(release::Options),
    /// Kills processes and servers while customers buy, and checks that nothing was lost or done twice.
    Faults(faults::Options),
    /// Tries every parser of what others write, for as long as one likes.
    Fuzz(fuzz::Options),
    /// Restarts product, payment and edge again and again while customers buy, and counts what fails.
    Roll(roll::Options),
    /// Makes an OCI image archive of each program, or runs them from there: `cargo xtask image run product`.
    Image(image::Options),
    /// Kubernetes: `cargo xtask k8s check` without a cluster, `cargo xtask k8s smoke` with one.
    K8s {
        #[command(subcommand)]
        task: K8s,
    },
    /// Starts a private PostgreSQL and RabbitMQ for tests that are run one by one; Ctrl-C stops them.
    Servers,
    /// Measures the services against their servers, and the mesh against others: `cargo xtask bench store`,
    /// `mesh`, `overload`.
    #[command(disable_help_flag = true)]
    Bench(bench::Options),
    /// Writes docs/configuration.md from the configuration structs.
    Docs(docs::Options),
}

#[derive(Subcommand)]
enum K8s {
    /// Renders and checks every overlay; prints each own policy and the mutations that it has caught.
    Check(k8s::Options),
    /// The shop on a cluster: the README's tour, rolls under load, killed pods, probed arrows, every invariant.
    Smoke(k8s_smoke::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Test(options) => test::run(&options),
        Task::Affected(options) => affected::run(&options),
        Task::PrLight(options) => pr_light::run(&options),
        Task::Verify(options) => verify::run(&options),
        Task::Mutants(options) => mutants::run(&options),
        Task::Semver(options) => semver::run(&options),
        Task::Tour(options) => tour::run(&options),
        Task::Up(options) => up::run(&options),
        Task::Check(options) => check::run(&options),
        Task::NewService(options) => new_service::run(&options),
        Task::Release(options) => release::run(&options),
        Task::Faults(options) => faults::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Roll(options) => roll::run(&options),
        Task::Image(options) => image::run(&options),
        Task::K8s {
            task: K8s::Check(options),
        } => k8s::run(&options),
        Task::K8s {
            task: K8s::Smoke(options),
        } => k8s_smoke::run(&options),
        Task::Servers => servers::run(),
        Task::Bench(options) => bench::run(&options),
        Task::Docs(options) => docs::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
