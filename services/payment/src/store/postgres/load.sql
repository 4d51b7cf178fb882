-- Payments with everything that belongs to them, each as one row. What follows says which.
SELECT to_jsonb(p) AS payment,
    p.lease_until_us <= mesh_now_us() AS lease_ended,
    (SELECT jsonb_agg(to_jsonb(a) ORDER BY a.number) FROM attempts a WHERE a.payment_id = p.id) AS attempts,
    (SELECT jsonb_agg(to_jsonb(c) ORDER BY c.number) FROM captures c WHERE c.payment_id = p.id) AS captures,
    (SELECT jsonb_agg(to_jsonb(r) ORDER BY r.number) FROM refunds r WHERE r.payment_id = p.id) AS refunds,
    (SELECT jsonb_agg(to_jsonb(d) ORDER BY d.number) FROM disputes d WHERE d.payment_id = p.id) AS disputes
FROM payments p
