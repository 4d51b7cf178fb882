//! The private RabbitMQ: it keeps what it has through a kill, and is gone afterwards.

use xtask::{
    process::{collect, command},
    servers::RabbitMq,
};

#[test]
fn a_node_starts_survives_a_kill_and_leaves_nothing() {
    let mut rabbitmq = RabbitMq::start().unwrap();
    rabbitmq.ctl(&["add_vhost", "kept"]).unwrap();
    rabbitmq.kill();
    assert!(rabbitmq.ctl(&["list_vhosts"]).is_err(), "it is still there");
    rabbitmq.start_again().unwrap();
    let vhosts = rabbitmq.ctl(&["list_vhosts"]).unwrap();
    assert!(vhosts.lines().any(|vhost| vhost == "kept"), "{vhosts}");
    let folder = rabbitmq.folder().to_owned();
    drop(rabbitmq);
    assert!(!folder.exists());
    let left = collect(command("pgrep").args(["-f", &folder.to_string_lossy()])).unwrap();
    assert_eq!(left.text.trim(), "");
}
