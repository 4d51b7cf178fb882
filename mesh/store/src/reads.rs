//! Reads outside of a write's transaction: a pool whose use is seen by collectors.
//!
//! A statement by itself is one span, from waiting for a connection to its last row; several on one connection, or in one
//! snapshot, are one span together, until the connection goes back. Only what is read for a call or an event is seen:
//! polling that nobody asked for would fill a collector with traces of one span.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{Stream, future::BoxFuture, stream::BoxStream};
use sqlx::{
    Connection, Database, Describe, Either, Error, Execute, Executor, Pool, SqlStr, Transaction,
    pool::PoolConnection,
};
use tracing::{Instrument as _, Span};

use crate::span::ReadSpan;

/// Reads from a database; goes wherever sqlx takes an executor.
pub struct Reads<'p, DB: Database> {
    pool: &'p Pool<DB>,
    /// A value of `db.system.name`.
    system: &'static str,
    database: &'p str,
}

impl<'p, DB: Database> Reads<'p, DB> {
    pub(crate) fn new(pool: &'p Pool<DB>, system: &'static str, database: &'p str) -> Self {
        Self {
            pool,
            system,
            database,
        }
    }

    /// A connection for several reads, each of which sees what is committed by then.
    pub async fn acquire(self) -> Result<Reading<PoolConnection<DB>>, Error> {
        let span = self.span();
        let connection = self.pool.acquire().instrument(span.inner()).await;
        Reading::begin(connection, span)
    }

    /// A snapshot: what it sees does not change while it lasts.
    pub async fn begin(self) -> Result<Reading<Transaction<'static, DB>>, Error> {
        let span = self.span();
        let transaction = self.pool.begin().instrument(span.inner()).await;
        Reading::begin(transaction, span)
    }

    fn span(&self) -> ReadSpan {
        ReadSpan::begin(self.system, self.database)
    }
}

impl<DB: Database> Clone for Reads<'_, DB> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<DB: Database> Copy for Reads<'_, DB> {}

impl<DB: Database> fmt::Debug for Reads<'_, DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reads")
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

/// A connection, or a snapshot, that is read from. The span ends with it.
#[derive(Debug)]
pub struct Reading<C> {
    connection: C,
    _span: ReadSpan,
}

impl<C> Reading<C> {
    fn begin(connection: Result<C, Error>, span: ReadSpan) -> Result<Self, Error> {
        let connection = connection.inspect_err(|error| span.failed(error))?;
        Ok(Self {
            connection,
            _span: span,
        })
    }
}

impl<C: Deref<Target: Connection>> Deref for Reading<C> {
    type Target = C::Target;

    fn deref(&self) -> &C::Target {
        &self.connection
    }
}

impl<C: DerefMut<Target: Connection>> DerefMut for Reading<C> {
    fn deref_mut(&mut self) -> &mut C::Target {
        &mut self.connection
    }
}

impl<'p, DB: Database> Executor<'p> for Reads<'p, DB>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    type Database = DB;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<DB::QueryResult, DB::Row>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, DB>,
    {
        let span = self.span();
        let rows = span.inner().in_scope(|| self.pool.fetch_many(query));
        Box::pin(Rows { rows, span })
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxFuture<'e, Result<Option<DB::Row>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, DB>,
    {
        let span = self.span();
        let fetching = self.pool.fetch_optional(query).instrument(span.inner());
        Box::pin(async move { fetching.await.inspect_err(|error| span.failed(error)) })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [DB::TypeInfo],
    ) -> BoxFuture<'e, Result<DB::Statement, Error>>
    where
        'p: 'e,
    {
        self.pool.prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<DB>, Error>>
    where
        'p: 'e,
    {
        self.pool.describe(sql)
    }
}

/// The rows of a statement, as they come.
struct Rows<S> {
    rows: S,
    span: ReadSpan,
}

impl<S, T> Stream for Rows<S>
where
    S: Stream<Item = Result<T, Error>> + Unpin,
{
    type Item = Result<T, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let span: Span = self.span.inner();
        let next = span.in_scope(|| Pin::new(&mut self.rows).poll_next(cx));
        if let Poll::Ready(Some(Err(error))) = &next {
            self.span.failed(error);
        }
        next
    }
}
