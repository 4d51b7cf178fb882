//! Declaring, repeating it, and finding something else there.

use mesh_events::{Bus as _, BusError};
use mesh_rabbitmq::{RabbitMqConfig, RabbitMqError, declare};

use xtask::servers::free_port;

use crate::support::{bus, config, config_at, subscription};

#[tokio::test]
async fn declaring_can_be_repeated_with_another_ladder() {
    let config = config();
    let consumers = [subscription("a", 1), subscription("b", 1)];
    for ladder in [vec![100], vec![100], vec![100, 200]] {
        let config = RabbitMqConfig {
            retry_ladder_ms: ladder,
            ..config.clone()
        };
        declare(&config, &consumers).await.unwrap();
    }
}

#[tokio::test]
async fn a_queue_that_differs_is_refused_by_name_and_argument() {
    let config = config();
    declare(&config, &[subscription("a", 1)]).await.unwrap();
    let changed = RabbitMqConfig {
        delivery_limit: 7,
        ..config.clone()
    };
    let error = declare(&changed, &[subscription("a", 1)])
        .await
        .unwrap_err();
    let expected = format!(
        "queue \"{}.a\" exists with another x-delivery-limit: ",
        config.exchange
    );
    let text = error.to_string();
    assert!(text.starts_with(&expected), "{text}");
    assert!(text.contains("'7'") && text.contains("'100'"), "{text}");

    let bus = bus(&changed);
    let refused = bus.declare(&[subscription("a", 1)]).await.unwrap_err();
    assert_eq!(refused.to_string(), text, "a service that starts");
    let refused = bus.subscribe(subscription("a", 1)).await.map(drop);
    let Err(BusError::Invalid(text)) = refused else {
        panic!("{refused:?}");
    };
    assert!(text.starts_with(&expected), "{text}");
}

#[tokio::test]
async fn a_service_starts_without_a_broker() {
    let nowhere = format!("amqp://127.0.0.1:{}/%2f", free_port().unwrap());
    let config = config_at(&nowhere);
    let consumers = [subscription("a", 1)];
    bus(&config).declare(&consumers).await.unwrap();
    declare(&config, &consumers).await.unwrap_err();
}

#[tokio::test]
async fn an_exchange_that_differs_is_refused() {
    let config = config();
    let taken = RabbitMqConfig {
        exchange: "amq.fanout".into(),
        ..config
    };
    let error = declare(&taken, &[]).await.unwrap_err();
    assert!(matches!(error, RabbitMqError::Mismatch { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.starts_with("exchange \"amq.fanout\" exists with another type: "),
        "{text}"
    );
}

#[tokio::test]
async fn a_wrong_password_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    let mut config = config();
    config.password_file = Some(file.clone());
    let error = declare(&config, &[]).await.unwrap_err();
    assert!(
        error.to_string().ends_with("password\" cannot be read"),
        "{error}"
    );

    std::fs::write(&file, "wrong\n").unwrap();
    let error = declare(&config, &[]).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        cause.contains("ACCESS_REFUSED") || cause.contains("ACCESS-REFUSED"),
        "{cause}"
    );
    assert!(!format!("{error:?}").contains("wrong"), "{error:?}");

    std::fs::write(&file, "guest\n").unwrap();
    declare(&config, &[]).await.unwrap();
}
