//! Starts programs from their archives as a cluster would: with runc, on a root that cannot be written, as a user without
//! capabilities who cannot get any. Then each is asked for its health and told to stop.
//!
//! They share the network of this machine, on loopback ports of their own; a volume in memory is all that they can
//! write. Deliberately without cgroups and seccomp: those are the cluster's.

use std::{
    fmt::{self, Write as _},
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{archive::Image, contents};
use crate::{
    debian,
    process::{collect, command, output},
    servers::{Group, free_port, program},
    services,
    shop::get,
};

const READY_TIMEOUT: Duration = Duration::from_mins(1);
/// How large the volume for data is.
const DATA: &str = "size=64m";

/// What was seen of the programs that ran.
pub struct Reports(Vec<Report>);

struct Report {
    name: String,
    health: String,
    confinement: String,
}

impl fmt::Display for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for report in &self.0 {
            let Report {
                name,
                health,
                confinement,
            } = report;
            writeln!(f, "{name:<10} {health:<28} {confinement}")?;
        }
        Ok(())
    }
}

/// Whether this machine can run containers; else why not.
pub fn available() -> Result<()> {
    ensure!(debian::root_user(), "only root may start containers");
    debian::ensure("runc", "runc")
}

/// Runs programs one after the other from the archives in a folder. The health of those that speak gRPC is asked for by
/// the image of `meshctl`, which has to be there too.
pub fn run_all(archives: &Path, names: &[&str]) -> Result<Reports> {
    available()?;
    let run = |name: &&str| run(archives, name).with_context(|| format!("image {name}"));
    names.iter().map(run).collect::<Result<_>>().map(Reports)
}

fn run(archives: &Path, name: &str) -> Result<Report> {
    if name == "meshctl" {
        let said = Bundle::unpack(archives, name)?.end(&["--version"])?;
        return Ok(Report {
            name: name.to_owned(),
            health: said.trim().to_owned(),
            confinement: "ran to its end".to_owned(),
        });
    }
    let (listen, admin) = (free_port()?, free_port()?);
    let prefix = name.to_uppercase();
    let mut environment = vec![
        format!("{prefix}__LISTEN=127.0.0.1:{listen}"),
        format!("{prefix}__ADMIN_LISTEN=127.0.0.1:{admin}"),
    ];
    // Nobody is there: to start and to be healthy a service needs no other.
    for destination in services::NAMES {
        let key = format!(
            "{prefix}__MESH__DESTINATIONS__{}",
            destination.to_uppercase()
        );
        environment.push(format!("{key}=http://127.0.0.1:{}", free_port()?));
    }
    if name == "simulator" {
        environment.truncate(2); // It calls nobody.
    }
    let mut container = Bundle::unpack(archives, name)?.start(&[], &environment)?;
    let address = ([127, 0, 0, 1], admin).into();
    let ready = || get(address, "/readyz").is_ok_and(|(status, _)| status == 200);
    let log = container.log.clone();
    container.group.wait_until(READY_TIMEOUT, &log, ready)?;
    let health = if services::NAMES.contains(&name) {
        let service = format!("http://127.0.0.1:{listen}");
        let meshctl = Bundle::unpack(archives, "meshctl")?;
        let said = meshctl.end(&["health", &service, "startup", "readiness", "liveness"])?;
        format!("gRPC health: {}", said.trim().replace('\n', ", "))
    } else {
        "/readyz: 200".to_owned()
    };
    let confinement = container.confinement()?;
    container.stop()?;
    Ok(Report {
        name: name.to_owned(),
        health,
        confinement,
    })
}

/// An image's file system, and how it is to be run.
struct Bundle {
    folder: TempDir,
    id: String,
    config: Value,
}

impl Bundle {
    fn unpack(archives: &Path, name: &str) -> Result<Bundle> {
        let image = Image::open(&archives.join(format!("{name}.oci.tar")))?;
        let folder = tempfile::Builder::new()
            .prefix("commerce-mesh-image-")
            .tempdir()?;
        let root = folder.path().join("rootfs");
        fs::create_dir(&root)?;
        image.unpack(&root)?;
        let id = folder.path().file_name().context("a folder has a name")?;
        Ok(Bundle {
            id: id.to_string_lossy().into_owned(),
            config: image.config["config"].clone(),
            folder,
        })
    }

    /// Runs it to its end; what it printed.
    fn end(&self, arguments: &[&str]) -> Result<String> {
        self.write(arguments, &[])?;
        output(&mut self.runc_run())
    }

    /// Starts it.
    fn start(self, arguments: &[&str], environment: &[String]) -> Result<Container> {
        self.write(arguments, environment)?;
        let log = self.folder.path().join("log");
        let file = File::create(&log)?;
        let mut run = self.runc_run();
        run.stdout(file.try_clone()?).stderr(file);
        let group = Group::start(&mut run)?;
        Ok(Container {
            bundle: self,
            group,
            log,
        })
    }

    fn runc_run(&self) -> std::process::Command {
        let mut run = program(Path::new("runc"), None);
        run.arg("run").arg("--bundle").arg(self.folder.path());
        run.arg(&self.id);
        run
    }

    fn write(&self, arguments: &[&str], environment: &[String]) -> Result<()> {
        let specification = specification(&self.config, arguments, environment)?;
        let file = self.folder.path().join("config.json");
        fs::write(file, serde_json::to_vec_pretty(&specification)?)?;
        Ok(())
    }
}

/// The container as the runtime-spec describes it: by the image's own configuration, and with no right that it does not
/// need.
fn specification(config: &Value, arguments: &[&str], environment: &[String]) -> Result<Value> {
    let strings = |key: &str| {
        let values = config[key].as_array().into_iter().flatten();
        values.filter_map(Value::as_str)
    };
    let user = config["User"].as_str().context("the image names a user")?;
    let (user, group) = user.split_once(':').context("USER:GROUP")?;
    let (user, group): (u32, u32) = (user.parse()?, group.parse()?);
    let arguments: Vec<_> = strings("Entrypoint")
        .chain(arguments.iter().copied())
        .collect();
    let environment: Vec<_> = strings("Env")
        .chain(environment.iter().map(String::as_str))
        .collect();
    let none: [&str; 0] = [];
    let data = format!("uid={user},gid={group},mode=0700,{DATA}");
    let options: Vec<_> = ["nosuid", "nodev", "noexec"]
        .into_iter()
        .chain(data.split(','))
        .collect();
    Ok(json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": user, "gid": group},
            "args": arguments,
            "env": environment,
            "cwd": config["WorkingDir"],
            "capabilities": {
                "bounding": none, "effective": none, "inheritable": none, "permitted": none, "ambient": none,
            },
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": contents::DATA, "type": "tmpfs", "source": "tmpfs", "options": options},
        ],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}]},
    }))
}

/// A program that runs in its image.
struct Container {
    bundle: Bundle,
    group: Group,
    log: PathBuf,
}

impl Container {
    /// How it is held, as the kernel says; an error where that is too little.
    fn confinement(&self) -> Result<String> {
        let state = output(command("runc").args(["state", &self.bundle.id]))?;
        let state: Value = serde_json::from_str(&state)?;
        let process = format!("/proc/{}", state["pid"]);
        let status = fs::read_to_string(format!("{process}/status"))?;
        let mounts = fs::read_to_string(format!("{process}/mountinfo"))?;
        confined(&status, &mounts)
    }

    /// Tells it to stop, as a cluster does; it has to end by itself.
    fn stop(mut self) -> Result<()> {
        self.group.terminate()?;
        let status = self.group.wait()?;
        if !status.success() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            bail!("ended with {status} after SIGTERM:\n{log}");
        }
        Ok(())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.group.kill();
        // Usually it is gone already.
        let _ = collect(command("runc").args(["delete", "--force", &self.bundle.id]));
    }
}

/// What `/proc/PID/status` and `/proc/PID/mountinfo` say of a process, if that is no more than it may.
fn confined(status: &str, mounts: &str) -> Result<String> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        Ok::<_, anyhow::Error>(line.with_context(|| format!("no {name}"))?.trim())
    };
    let user = contents::USER.to_string();
    for (name, ids) in [("Uid:", field("Uid:")?), ("Gid:", field("Gid:")?)] {
        let all = ids.split_whitespace().all(|id| id == user);
        ensure!(all, "{name} {ids}, not {user}");
    }
    for name in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        let rights = field(name)?;
        ensure!(rights.bytes().all(|digit| digit == b'0'), "{name} {rights}");
    }
    ensure!(field("NoNewPrivs:")? == "1", "it could get privileges");
    let mut writable = String::new();
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(4);
        let (place, options) = (words.next().unwrap_or_default(), words.next());
        let is_writable = options.is_some_and(|options| options.split(',').any(|o| o == "rw"));
        ensure!(place != "/" || !is_writable, "its root can be written");
        if is_writable && place != "/proc" {
            write!(writable, " {place}")?;
        }
    }
    ensure!(
        writable.trim() == contents::DATA,
        "what it can write is{writable}"
    );
    Ok(format!(
        "user {user}, no capabilities, no new privileges, writes{writable} only"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Uid:\t65532\t65532\t65532\t65532\nGid:\t65532\t65532\t65532\t65532\n\
        CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
        CapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n";
    const MOUNTS: &str = "65 43 254:0 /rootfs / ro,relatime - ext4 /dev/vda rw\n\
        66 65 0:40 / /proc rw,relatime - proc proc rw\n\
        67 65 0:41 / /data rw,nosuid - tmpfs tmpfs rw,size=65536k\n";

    #[test]
    fn a_right_too_many_is_noticed() {
        assert!(confined(STATUS, MOUNTS).is_ok());
        let refused =
            |status: &str, mounts: &str| confined(status, mounts).unwrap_err().to_string();
        let root = STATUS.replacen("65532", "0", 1);
        assert!(refused(&root, MOUNTS).starts_with("Uid: 0"));
        let capable = STATUS.replace("CapBnd:\t0000000000000000", "CapBnd:\t0000000000000400");
        assert_eq!(refused(&capable, MOUNTS), "CapBnd: 0000000000000400");
        let hopeful = STATUS.replace("NoNewPrivs:\t1", "NoNewPrivs:\t0");
        assert_eq!(refused(&hopeful, MOUNTS), "it could get privileges");
        let writable = MOUNTS.replace("/ ro,", "/ rw,");
        assert_eq!(refused(STATUS, &writable), "its root can be written");
        let further = format!("{MOUNTS}68 65 0:42 / /var rw - tmpfs tmpfs rw\n");
        assert_eq!(refused(STATUS, &further), "what it can write is /data /var");
    }

    #[test]
    fn a_container_is_what_its_image_says_with_no_right_beside() {
        let config = json!({
            "User": "65532:65532", "Entrypoint": ["/app/edge"], "Env": ["PATH=/"], "WorkingDir": "/",
        });
        let made = specification(&config, &["--help"], &["A=b".to_owned()]).unwrap();
        let process = &made["process"];
        assert_eq!(process["user"], json!({"uid": 65_532, "gid": 65_532}));
        assert_eq!(process["args"], json!(["/app/edge", "--help"]));
        assert_eq!(process["env"], json!(["PATH=/", "A=b"]));
        assert_eq!(process["capabilities"]["bounding"], json!([]));
        assert_eq!(
            (&made["root"]["readonly"], &process["noNewPrivileges"]),
            (&json!(true), &json!(true))
        );
        let error = specification(&json!({"User": "root"}), &[], &[]).unwrap_err();
        assert_eq!(error.to_string(), "USER:GROUP");
    }
}
