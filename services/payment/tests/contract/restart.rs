//! A restart on the same SQLite file.

use crate::suite::crash::{create, only_payment, sold};
use crate::suite::fuse::Fuse;
use crate::suite::world::{Buy, World};
use payment::error::Error;

/// The next process on the same file need not wait until the leases of the last one run out.
#[tokio::test]
async fn a_restart_goes_on_at_once() {
    let world = World::new().await;
    let fuse = Fuse::at(12);
    let doomed = world.process_with(&fuse);
    let buy = Buy {
        order_ref: Some("restart".into()),
        ..Buy::some()
    };
    tokio::select! {
        biased;
        () = fuse.blown() => {}
        _ = create(&doomed, &world, "restart", &buy) => panic!("ran through"),
    }
    let next = world.process();
    assert_eq!(
        next.worker.run_once().await.unwrap(),
        0,
        "the lease is not free"
    );
    assert!(matches!(
        create(&next, &world, "restart", &buy).await,
        Err(Error::InFlight)
    ));
    assert_eq!(world.storage.sqlite().end_leases().await.unwrap(), 1);
    assert_eq!(next.worker.run_once().await.unwrap(), 1);
    create(&next, &world, "restart", &buy).await.unwrap();
    assert!(sold(&only_payment(&world, "restart").await));
    world.check().await;
}
