//! One call of each kind, and what came of it as text: the same on every rung.

use futures_util::{TryStreamExt as _, stream};
use tonic::{
    Status,
    body::Body,
    client::GrpcService,
    codegen::{Body as HttpBody, Bytes, StdError},
};

use crate::pb::{Point, Rectangle, RouteNote, RouteSummary, route_guide_client::RouteGuideClient};

const LIGHTHOUSE: Point = Point {
    latitude: 352_000_000,
    longitude: 1_290_000_000,
};
const FERRY: Point = Point {
    latitude: 353_000_000,
    longitude: 1_290_500_000,
};

/// Where nothing is known.
const CROSSING: Point = Point {
    latitude: 354_000_000,
    longitude: 1_291_500_000,
};

/// Calls every method once.
pub async fn tour<C>(mut client: RouteGuideClient<C>) -> Result<String, Status>
where
    C: GrpcService<Body>,
    C::Error: Into<StdError>,
    C::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <C::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    let feature = client.get_feature(LIGHTHOUSE).await?.into_inner();
    let rectangle = Rectangle {
        lo: Some(LIGHTHOUSE),
        hi: Some(FERRY),
    };
    let listed = client.list_features(rectangle).await?.into_inner();
    let listed: Vec<_> = listed.map_ok(|feature| feature.name).try_collect().await?;
    let route = stream::iter([LIGHTHOUSE, FERRY, CROSSING]);
    let summary = client.record_route(route).await?.into_inner();
    let RouteSummary {
        point_count,
        feature_count,
        distance,
        ..
    } = summary;
    let notes = ["first", "second", "third"].map(|message| RouteNote {
        location: Some(FERRY),
        message: message.to_owned(),
    });
    let answers = client.route_chat(stream::iter(notes)).await?.into_inner();
    let answers: Vec<_> = answers.map_ok(|note| note.message).try_collect().await?;
    Ok(format!(
        "feature: {}\nlisted: {}\nroute: {point_count} points, {feature_count} features, {} km\nnotes: {}\n",
        feature.name,
        listed.join(", "),
        distance / 1000,
        answers.join(", "),
    ))
}
