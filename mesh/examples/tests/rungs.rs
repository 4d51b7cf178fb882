//! Each rung works, and costs a few lines beside the one before.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::{fs, path::Path, process::Command};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType,
};

const RUNGS: [(&str, &str); 5] = [
    ("plain", include_str!("../src/bin/plain.rs")),
    ("layer", include_str!("../src/bin/layer.rs")),
    ("client", include_str!("../src/bin/client.rs")),
    ("server", include_str!("../src/bin/server.rs")),
    ("identity", include_str!("../src/bin/identity.rs")),
];
/// What the mesh needs beside the program itself: lines that end with a word of the rung.
const AROUND: [&str; 2] = [include_str!("../Cargo.toml"), include_str!("../build.rs")];
/// From plain tonic to client and server of the mesh.
const CHANGED_MAX: usize = 10;

const TOLD: &str = "\
feature: Lighthouse
listed: Lighthouse, Old ferry
route: 3 points, 2 features, 26 km
notes: first, first, second
";

fn run(program: &str, arguments: &[&Path]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program}: {complaint}");
    said
}

#[test]
fn plain_tonic_takes_the_tour() {
    assert_eq!(run(env!("CARGO_BIN_EXE_plain"), &[]), TOLD);
}

#[test]
fn the_layer_on_a_channel_takes_the_tour() {
    assert_eq!(run(env!("CARGO_BIN_EXE_layer"), &[]), TOLD);
}

#[test]
fn the_client_takes_the_tour() {
    assert_eq!(run(env!("CARGO_BIN_EXE_client"), &[]), TOLD);
}

#[test]
fn client_and_server_take_the_tour() {
    assert_eq!(run(env!("CARGO_BIN_EXE_server"), &[]), TOLD);
}

#[test]
fn strict_identity_takes_the_tour() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::default();
    let id = "spiffe://guide.example/route-guide";
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    fs::write(at("certificate.pem"), certificate.pem()).unwrap();
    fs::write(at("key.pem"), key.serialize_pem()).unwrap();
    fs::write(at("bundle.pem"), authority.pem()).unwrap();
    let files = ["certificate", "key", "bundle"]
        .map(|name| format!("{name} = {:?}\n", at(&format!("{name}.pem"))))
        .concat();
    let config = format!("[identity]\nmode = \"strict\"\n[identity.files]\n{files}");
    fs::write(at("mesh.toml"), config).unwrap();
    let told = run(env!("CARGO_BIN_EXE_identity"), &[&at("mesh.toml")]);
    assert_eq!(told, TOLD);
}

#[test]
fn moving_to_the_mesh_changes_ten_lines() {
    let around = |word: &str| {
        let lines = AROUND.iter().flat_map(|text| text.lines());
        let marked = |line: &&str| {
            line.ends_with(&format!("# {word}")) || line.ends_with(&format!("// {word}"))
        };
        lines.filter(marked).count()
    };
    assert_eq!(around("mesh"), 2, "manifest and build script");
    for pair in RUNGS.windows(2) {
        let [(from, before), (to, after)] = pair else {
            continue;
        };
        println!("{from} -> {to}: {} lines", changed(before, after));
    }
    let of = |rung: &str| RUNGS.iter().find(|(name, _)| *name == rung).unwrap().1;
    assert!(!of("plain").contains("mesh"));
    let total = around("mesh") + changed(of("plain"), of("server"));
    println!("plain -> server, with manifest and build script: {total} lines");
    assert!(total <= CHANGED_MAX, "{total} lines");
    let identity = around("identity") + changed(of("server"), of("identity"));
    assert!(identity <= 5, "{identity} lines");
}

#[test]
fn changed_lines_are_counted_as_one_would() {
    assert_eq!(changed("a\nb\nc", "a\nb\nc"), 0);
    assert_eq!(changed("a\nb\nc", "a\nx\nc"), 1, "one is another");
    assert_eq!(changed("a\nc", "a\nb\nc"), 1, "one is new");
    assert_eq!(changed("a\nb\nc", "a\nc"), 1, "one is gone");
    assert_eq!(changed("a\nb\nc\nd", "x\nb\ny\nz\nd"), 3);
    assert_eq!(
        changed("//! One.\na", "//! Two.\na"),
        0,
        "not what says which rung it is"
    );
}

/// How many lines one has to touch: of each stretch that differs, the lines that go or those that come,
/// whichever are more.
fn changed(before: &str, after: &str) -> usize {
    let code = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with("//!"));
        lines.map(str::to_owned).collect()
    };
    let (before, after) = (code(before), code(after));
    // The longest common subsequence of what is left of both, by where each begins.
    let mut common = vec![vec![0; after.len() + 1]; before.len() + 1];
    for i in (0..before.len()).rev() {
        for j in (0..after.len()).rev() {
            common[i][j] = if before[i] == after[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut touched) = (0, 0, 0);
    let (mut gone, mut new): (usize, usize) = (0, 0);
    while i < before.len() || j < after.len() {
        if i < before.len() && j < after.len() && before[i] == after[j] {
            touched += gone.max(new);
            (gone, new, i, j) = (0, 0, i + 1, j + 1);
        } else if j == after.len() || i < before.len() && common[i + 1][j] >= common[i][j + 1] {
            (gone, i) = (gone + 1, i + 1);
        } else {
            (new, j) = (new + 1, j + 1);
        }
    }
    touched + gone.max(new)
}
