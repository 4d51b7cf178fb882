//! The handler: a map of a few places, and the notes that were left there.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Mutex, PoisonError},
};

use futures_util::{Stream, StreamExt as _, stream};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use crate::pb::{self, Feature, Point, Rectangle, RouteNote, RouteSummary};

/// What is known from the start: name, latitude, longitude.
const PLACES: [(&str, i32, i32); 4] = [
    ("Lighthouse", 352_000_000, 1_290_000_000),
    ("Old ferry", 353_000_000, 1_290_500_000),
    ("Tea field", 354_000_000, 1_289_000_000),
    ("Observatory", 361_000_000, 1_287_000_000),
];
/// How many notes are kept, over all places; further ones are refused.
const NOTES_MAX: usize = 1024;
const EARTH_RADIUS_M: f64 = 6_371_000.0;

/// Serves RouteGuide.
#[derive(Debug, Default)]
pub struct Guide {
    notes: Mutex<HashMap<(i32, i32), Vec<RouteNote>>>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl pb::route_guide_server::RouteGuide for std::sync::Arc<Guide> {
    async fn get_feature(&self, request: Request<Point>) -> Result<Response<Feature>, Status> {
        Ok(Response::new(feature_at(request.into_inner())))
    }

    type ListFeaturesStream = Answers<Feature>;

    async fn list_features(
        &self,
        request: Request<Rectangle>,
    ) -> Result<Response<Answers<Feature>>, Status> {
        let Rectangle { lo, hi } = request.into_inner();
        let (a, b) = (lo.unwrap_or_default(), hi.unwrap_or_default());
        let within = |value: i32, x: i32, y: i32| (x.min(y)..=x.max(y)).contains(&value);
        let places = PLACES.into_iter().filter(move |(_, latitude, longitude)| {
            within(*latitude, a.latitude, b.latitude)
                && within(*longitude, a.longitude, b.longitude)
        });
        let features = places.map(|(_, latitude, longitude)| {
            Ok(feature_at(Point {
                latitude,
                longitude,
            }))
        });
        Ok(Response::new(Box::pin(stream::iter(features))))
    }

    async fn record_route(
        &self,
        request: Request<Streaming<Point>>,
    ) -> Result<Response<RouteSummary>, Status> {
        let (mut points, began) = (request.into_inner(), Instant::now());
        let (mut summary, mut distance_m) = (RouteSummary::default(), 0.0);
        let mut last = None;
        while let Some(point) = points.next().await.transpose()? {
            summary.point_count += 1;
            summary.feature_count += i32::from(!feature_at(point).name.is_empty());
            distance_m += last.map_or(0.0, |last| metres(last, point));
            last = Some(point);
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the contract counts whole metres, and a float saturates"
        )]
        let distance = distance_m as i32;
        summary.distance = distance;
        summary.elapsed_time = i32::try_from(began.elapsed().as_secs()).unwrap_or(i32::MAX);
        Ok(Response::new(summary))
    }

    type RouteChatStream = Answers<RouteNote>;

    async fn route_chat(
        &self,
        request: Request<Streaming<RouteNote>>,
    ) -> Result<Response<Answers<RouteNote>>, Status> {
        let guide = self.clone();
        let answers = request.into_inner().flat_map(move |note| {
            let answers = note.and_then(|note| guide.leave(note));
            stream::iter(match answers {
                Ok(notes) => notes.into_iter().map(Ok).collect(),
                Err(status) => vec![Err(status)],
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

impl Guide {
    /// Keeps a note; answers those that were there before.
    fn leave(&self, note: RouteNote) -> Result<Vec<RouteNote>, Status> {
        // A map of notes is whole even if a thread panicked while it held the lock.
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.values().map(Vec::len).sum::<usize>() >= NOTES_MAX {
            return Err(Status::resource_exhausted("too many notes were left"));
        }
        let at = note.location.unwrap_or_default();
        let here = notes.entry((at.latitude, at.longitude)).or_default();
        let before = here.clone();
        here.push(note);
        Ok(before)
    }
}

fn feature_at(point: Point) -> Feature {
    let is_here = |(_, latitude, longitude): &&(&str, i32, i32)| {
        (*latitude, *longitude) == (point.latitude, point.longitude)
    };
    let name = PLACES.iter().find(is_here).map_or("", |(name, ..)| name);
    Feature {
        name: name.to_owned(),
        location: Some(point),
    }
}

/// Along the surface, by the haversine formula.
fn metres(a: Point, b: Point) -> f64 {
    let radians = |value: i32| (f64::from(value) / 1e7).to_radians();
    let (phi_a, phi_b) = (radians(a.latitude), radians(b.latitude));
    let half = |x: f64, y: f64| ((y - x) / 2.0).sin().powi(2);
    let angle = half(phi_a, phi_b)
        + phi_a.cos() * phi_b.cos() * half(radians(a.longitude), radians(b.longitude));
    2.0 * EARTH_RADIUS_M * angle.sqrt().asin()
}
