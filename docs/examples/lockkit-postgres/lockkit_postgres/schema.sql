-- The store: what is kept, and every call of lockkit as one function, so that a call is one statement and one
-- transaction. A client that stops in the middle of a call can therefore hold up nobody: it holds no lock of the server.
--
-- Load it as the owner, if clients may not create schemas:  psql -v schema=lockkit -f schema.sql DATABASE

BEGIN;
CREATE SCHEMA :"schema"; -- fails if it is there: two who begin at once do not make half of it each
SET LOCAL search_path = :"schema", pg_temp;

-- What is kept. Names are compared byte by byte: no collation may make two of them one.

CREATE TABLE layout (version integer NOT NULL, min_reader integer NOT NULL);
INSERT INTO layout VALUES (1, 1);

-- One row for each name, for good: who changes a queue locks its row first, and the fence only ever rises.
CREATE TABLE queue (
    namespace text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    fence bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (namespace, name)
) WITH (fillfactor = 70);

CREATE TABLE claim (
    namespace text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    fence bigint NOT NULL,
    token text COLLATE "C" NOT NULL,
    claim_id text COLLATE "C" NOT NULL,
    state text NOT NULL DEFAULT 'WAITING' CHECK (state IN ('WAITING', 'OFFERED', 'HELD', 'LINGERING')),
    evicted boolean NOT NULL DEFAULT false,
    replayed boolean NOT NULL DEFAULT false, -- its create was sent more than once: a copy may be under way
    weight integer NOT NULL,
    capacity integer NOT NULL,
    ttl interval NOT NULL,
    max_hold interval,
    min_hold interval NOT NULL,
    lock_delay interval NOT NULL,
    since timestamptz NOT NULL,
    renewed timestamptz NOT NULL,
    deadline timestamptz NOT NULL,
    about text NOT NULL,  -- JSON, but as text: jsonb cannot hold \u0000
    note text,
    asked boolean NOT NULL DEFAULT false, -- others have annotated it: its holder is told
    PRIMARY KEY (namespace, name, fence),
    UNIQUE (namespace, name, token)
) WITH (fillfactor = 50);
CREATE INDEX ON claim (namespace, claim_id);

-- Tombstones: claims that were given up while a copy of their acquire may be under way.
CREATE TABLE gone (
    namespace text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    token text COLLATE "C" NOT NULL,
    until timestamptz NOT NULL,
    PRIMARY KEY (namespace, name, token)
);
CREATE INDEX ON gone (until);

CREATE TABLE kept_record (
    namespace text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    version integer NOT NULL,
    value text NOT NULL,
    written timestamptz NOT NULL,
    PRIMARY KEY (namespace, name)
);

-- Small rules.

CREATE FUNCTION grace() RETURNS interval LANGUAGE sql IMMUTABLE AS $$ SELECT interval '6 s' $$;

-- Until when a claim granted at _since is kept if it is renewed at _at. (least() takes no notice of a max_hold that is NULL.)
CREATE FUNCTION kept_until(_claim claim, _since timestamptz, _at timestamptz) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT greatest(
        least(_at + (_claim).ttl, _since + (_claim).max_hold) + (_claim).lock_delay, _since + (_claim).min_hold
    )
$$;

-- lockkit's rule: the holders are the longest prefix whose weights add up to at most the first one's capacity. Nobody
-- may be granted while somebody holds outside of it, as after a resize. lockkit.store.queue says the same, and a test compares.
CREATE FUNCTION rule(_ns text, _name text) RETURNS TABLE (fence bigint, fits boolean) LANGUAGE sql STABLE AS $$
    WITH head AS (
        SELECT c.capacity FROM claim c WHERE c.namespace = _ns AND c.name = _name ORDER BY c.fence LIMIT 1
    ), line AS (
        SELECT
            c.fence,
            c.state IN ('HELD', 'LINGERING') AS holding,
            sum(c.weight) OVER arrival <= head.capacity AND bool_and(c.capacity = head.capacity) OVER arrival AS within
        FROM claim c CROSS JOIN head
        WHERE c.namespace = _ns AND c.name = _name
        WINDOW arrival AS (ORDER BY c.fence)
    )
    SELECT line.fence, line.within AND NOT EXISTS (SELECT FROM line l WHERE l.holding AND NOT l.within) FROM line
$$;

-- A claim as people see it; never its token.
CREATE FUNCTION shown(_claim claim, _position bigint) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'name', (_claim).name, 'claim_id', (_claim).claim_id, 'state', (_claim).state, 'fence', (_claim).fence,
        'position', _position, 'weight', (_claim).weight, 'capacity', (_claim).capacity,
        'ttl', extract(epoch FROM (_claim).ttl), 'since', extract(epoch FROM (_claim).since),
        'renewed', extract(epoch FROM (_claim).renewed), 'deadline', extract(epoch FROM (_claim).deadline),
        'evicted', (_claim).evicted, 'about', (_claim).about, 'note', (_claim).note
    )
$$;

CREATE FUNCTION head(_ns text, _name text) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT shown(c, 0) FROM claim c WHERE c.namespace = _ns AND c.name = _name ORDER BY c.fence LIMIT 1
$$;

-- Steps that calls are made of.

-- Lock a queue until the end of the statement; the time from which on it is ours. The row is what everybody queues at,
-- so nothing that follows can be read too early: under READ COMMITTED each statement of a function sees what was
-- committed before *it* began. Under any other isolation it would not, so that is refused.
CREATE FUNCTION enter(_ns text, _name text) RETURNS timestamptz LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'not under READ COMMITTED' USING ERRCODE = 'LK001';
    END IF;
    PERFORM FROM queue q WHERE q.namespace = _ns AND q.name = _name FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO queue VALUES (_ns, _name) ON CONFLICT DO NOTHING;
        PERFORM FROM queue q WHERE q.namespace = _ns AND q.name = _name FOR UPDATE;
    END IF;
    RETURN clock_timestamp();
END $$;

-- A channel for each namespace; its name is short whatever the namespace.
CREATE FUNCTION channel(_ns text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT 'lockkit_' || left(encode(sha256(convert_to(current_schema || '.' || _ns, 'UTF8')), 'hex'), 40)
$$;

-- Told by its claim id, which says nothing to those who may listen but must not know the locks.
CREATE FUNCTION wake(_ns text, _claim_id text) RETURNS void LANGUAGE sql AS $$
    SELECT pg_notify(channel(_ns), _claim_id)
$$;

-- The next in line sleeps until a deadline of those before it; that has just become an earlier one.
CREATE FUNCTION wake_next(_ns text, _name text) RETURNS void LANGUAGE sql AS $$
    SELECT wake(_ns, c.claim_id) FROM claim c
    WHERE c.namespace = _ns AND c.name = _name AND c.state = 'WAITING' ORDER BY c.fence LIMIT 1
$$;

-- Work out the prefix: what newly fits is OFFERED and its owner told, what does not fit any more is WAITING again.
CREATE FUNCTION offer(_ns text, _name text, _at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _changed record;
BEGIN
    FOR _changed IN
        UPDATE claim c SET
            state = CASE WHEN r.fits THEN 'OFFERED' ELSE 'WAITING' END,
            deadline = CASE WHEN r.fits THEN greatest(c.deadline, _at + grace()) ELSE c.deadline END
        FROM rule(_ns, _name) r
        WHERE c.namespace = _ns AND c.name = _name AND c.fence = r.fence
            AND c.state IN ('WAITING', 'OFFERED') AND (c.state = 'OFFERED') <> r.fits
        RETURNING c.claim_id, c.state
    LOOP
        IF _changed.state = 'OFFERED' THEN
            PERFORM wake(_ns, _changed.claim_id);
        END IF;
    END LOOP;
END $$;

-- What comes before every other step: whatever is past its deadline goes, wherever it stands.
CREATE FUNCTION settle(_ns text, _name text, _at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- Only after the server's clock went back is anything kept for longer than was asked.
    UPDATE claim c SET deadline = _at + CASE
            WHEN c.state IN ('WAITING', 'OFFERED') THEN grace() ELSE greatest(c.ttl + c.lock_delay, c.min_hold) END
    WHERE c.namespace = _ns AND c.name = _name AND c.deadline > _at + CASE
            WHEN c.state IN ('WAITING', 'OFFERED') THEN grace() ELSE greatest(c.ttl + c.lock_delay, c.min_hold) END;
    DELETE FROM claim c WHERE c.namespace = _ns AND c.name = _name AND c.deadline <= _at;
    IF FOUND THEN
        PERFORM offer(_ns, _name, _at);
    END IF;
END $$;

-- Leave a tombstone.
CREATE FUNCTION bury(_ns text, _name text, _token text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO gone VALUES (_ns, _name, _token, clock_timestamp() + interval '60 s')
    ON CONFLICT (namespace, name, token) DO UPDATE SET until = excluded.until
$$;

-- Take away tombstones that have served, of all names: two who do so must not wait for each other.
CREATE FUNCTION sweep() RETURNS void LANGUAGE sql AS $$
    DELETE FROM gone WHERE ctid = ANY (ARRAY(
        SELECT g.ctid FROM gone g WHERE g.until < clock_timestamp() LIMIT 100 FOR UPDATE SKIP LOCKED
    ))
$$;

-- Whoever removes a claim that was sent twice, and be it by hand: no late copy of it grants anything.
CREATE FUNCTION bury_replayed() RETURNS trigger LANGUAGE plpgsql SET search_path = :"schema", pg_temp AS $$
BEGIN
    PERFORM bury(OLD.namespace, OLD.name, OLD.token);
    RETURN NULL;
END $$;
CREATE TRIGGER bury_replayed AFTER DELETE ON claim FOR EACH ROW WHEN (OLD.replayed) EXECUTE FUNCTION bury_replayed();

-- The calls. They run with the owner's rights: a client needs none on the tables.

CREATE FUNCTION acquire(_ns text, _asked jsonb, _create boolean, _not_after double precision) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = :"schema", pg_temp AS $$
DECLARE
    _name text := _asked ->> 'name';
    _at timestamptz := enter(_ns, _name);
    _told jsonb := jsonb_build_object('at', extract(epoch FROM _at));
    _mine claim;
BEGIN
    PERFORM settle(_ns, _name, _at);
    SELECT * INTO _mine FROM claim c WHERE c.namespace = _ns AND c.name = _name AND c.token = _asked ->> 'token';
    IF _mine.fence IS NULL THEN
        IF NOT _create THEN
            RETURN _told || jsonb_build_object('answer', 'LAPSED', 'why', CASE
                WHEN (head(_ns, _name) ->> 'capacity')::integer < (_asked ->> 'weight')::integer THEN 'resized'
                ELSE 'absent' END);
        END IF;
        -- A copy that was under way for too long to be told from one that was given up, or one that was.
        IF extract(epoch FROM _at) > _not_after OR EXISTS (
            SELECT FROM gone g
            WHERE g.namespace = _ns AND g.name = _name AND g.token = _asked ->> 'token' AND g.until > _at
        ) THEN
            RETURN _told || '{"answer": "LAPSED", "why": "late"}';
        END IF;
        UPDATE queue q SET fence = q.fence + 1 WHERE q.namespace = _ns AND q.name = _name
        RETURNING q.fence INTO _mine.fence;
        INSERT INTO claim (namespace, name, fence, token, claim_id, weight, capacity, ttl, max_hold, min_hold, lock_delay,
            since, renewed, deadline, replayed, about, note)
        SELECT _ns, _name, _mine.fence, a.token, a.claim_id, a.weight, a.capacity, make_interval(secs => a.ttl),
            make_interval(secs => a.max_hold), make_interval(secs => a.min_hold), make_interval(secs => a.lock_delay),
            _at, _at, _at + grace(), a.again, a.about, a.note
        FROM jsonb_to_record(_asked) AS a (token text, claim_id text, weight integer, capacity integer,
            ttl double precision, max_hold double precision, min_hold double precision, lock_delay double precision,
            again boolean, about text, note text)
        RETURNING * INTO _mine;
    ELSE
        IF _create AND NOT _mine.replayed THEN
            UPDATE claim c SET replayed = true WHERE c.namespace = _ns AND c.name = _name AND c.fence = _mine.fence;
        END IF;
        IF _mine.evicted OR _mine.state = 'LINGERING' THEN
            RETURN _told || jsonb_build_object('answer', 'LAPSED',
                'why', CASE WHEN _mine.evicted THEN 'evicted' ELSE 'lingering' END);
        END IF;
    END IF;

    IF _mine.state = 'HELD' THEN
        UPDATE claim c SET renewed = _at, deadline = greatest(c.deadline, kept_until(c, c.since, _at))
        WHERE c.namespace = _ns AND c.name = _name AND c.fence = _mine.fence;
    ELSIF (SELECT r.fits FROM rule(_ns, _name) r WHERE r.fence = _mine.fence) THEN
        -- A waiter's deadline says nothing about a holder's, which may be the earlier one.
        UPDATE claim c SET state = 'HELD', since = _at, renewed = _at, deadline = kept_until(c, _at, _at)
        WHERE c.namespace = _ns AND c.name = _name AND c.fence = _mine.fence;
    ELSIF (_asked ->> 'wait')::boolean THEN
        UPDATE claim c SET deadline = greatest(c.deadline, _at + grace())
        WHERE c.namespace = _ns AND c.name = _name AND c.fence = _mine.fence;
        RETURN _told || jsonb_build_object('answer', 'QUEUED', 'fence', _mine.fence, 'capacity', _mine.capacity,
            'position', (SELECT count(*) FROM claim c
                WHERE c.namespace = _ns AND c.name = _name AND c.fence < _mine.fence),
            -- For the next in line alone, or everybody would ask when a claim lapses.
            'ask_in', (SELECT extract(epoch FROM min(c.deadline) - _at) FROM claim c
                WHERE c.namespace = _ns AND c.name = _name AND c.state <> 'WAITING' AND NOT EXISTS (
                    SELECT FROM claim w
                    WHERE w.namespace = _ns AND w.name = _name AND w.state = 'WAITING' AND w.fence < _mine.fence)),
            'holder', head(_ns, _name));
    ELSE
        DELETE FROM claim c WHERE c.namespace = _ns AND c.name = _name AND c.fence = _mine.fence;
        PERFORM offer(_ns, _name, _at);
        RETURN _told || jsonb_build_object('answer', 'BUSY', 'holder', head(_ns, _name));
    END IF;
    RETURN _told || jsonb_build_object('answer', 'GRANTED', 'fence', _mine.fence);
END $$;

CREATE FUNCTION renew_one(_ns text, _name text, _token text, _fence bigint, _ttl interval) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    _at timestamptz := enter(_ns, _name);
    _mine claim;
    _told jsonb;
BEGIN
    PERFORM settle(_ns, _name, _at);
    SELECT * INTO _mine FROM claim c WHERE c.namespace = _ns AND c.name = _name AND c.token = _token;
    IF _mine.fence IS NULL THEN
        RETURN '{"state": "LOST", "why": "absent"}';
    END IF;
    _told := CASE WHEN _mine.asked THEN jsonb_build_object('note', _mine.note) ELSE '{}' END;
    IF _mine.evicted THEN
        RETURN _told || '{"state": "LOST", "why": "evicted"}';
    ELSIF _mine.state = 'LINGERING' THEN
        RETURN _told || '{"state": "LOST", "why": "lapsed"}';
    ELSIF _fence IS NULL AND _mine.state = 'WAITING' THEN
        UPDATE claim c SET deadline = greatest(c.deadline, _at + grace())
        WHERE c.namespace = _ns AND c.name = _name AND c.fence = _mine.fence;
        RETURN _told || '{"state": "WAITING"}';
    ELSIF _fence IS NULL THEN -- OFFERED, or HELD while its owner has not read the grant: reported, never extended
        RETURN _told || '{"state": "OFFERED"}';
    ELSIF _mine.state <> 'HELD' OR _mine.fence <> _fence THEN
        RETURN _told || '{"state": "LOST", "why": "fence"}';
    END IF;
    UPDATE claim c SET ttl = greatest(c.ttl, _ttl) WHERE c.namespace = _ns AND c.name = _name AND c.fence = _mine.fence
    RETURNING * INTO _mine;
    UPDATE claim c SET renewed = _at, deadline = greatest(c.deadline, kept_until(_mine, c.since, _at))
    WHERE c.namespace = _ns AND c.name = _name AND c.fence = _mine.fence;
    RETURN _told || '{"state": "HELD"}';
END $$;

-- Several at once, in the order of their names: two batches that lock the same queues never wait for each other in a ring.
CREATE FUNCTION renew(_ns text, _beats jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = :"schema", pg_temp AS $$
DECLARE
    _beat record;
    _told jsonb[] := array_fill(NULL::jsonb, ARRAY[jsonb_array_length(_beats)]);
BEGIN
    FOR _beat IN
        SELECT b.place, b.beat ->> 'name' AS name, b.beat ->> 'token' AS token, (b.beat ->> 'fence')::bigint AS fence,
            make_interval(secs => (b.beat ->> 'ttl')::double precision) AS ttl
        FROM jsonb_array_elements(_beats) WITH ORDINALITY AS b (beat, place)
        ORDER BY (b.beat ->> 'name') COLLATE "C"
    LOOP
        _told[_beat.place] := renew_one(_ns, _beat.name, _beat.token, _beat.fence, _beat.ttl);
    END LOOP;
    RETURN to_jsonb(_told);
END $$;

CREATE FUNCTION release(_ns text, _name text, _token text, _how text, _doubt boolean) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = :"schema", pg_temp AS $$
DECLARE
    _at timestamptz := enter(_ns, _name);
    _mine claim;
    _until timestamptz;
BEGIN
    -- A copy of its acquire that waits for this queue now, or comes later, finds the tombstone. One that was first made
    -- the claim that is removed here.
    IF _doubt THEN
        PERFORM sweep(), bury(_ns, _name, _token);
    END IF;
    PERFORM settle(_ns, _name, _at);
    SELECT * INTO _mine FROM claim c WHERE c.namespace = _ns AND c.name = _name AND c.token = _token;
    IF _mine.fence IS NULL THEN
        RETURN '"ABSENT"';
    ELSIF _mine.state = 'LINGERING' THEN
        RETURN '"RELEASED"';
    ELSIF _mine.state = 'HELD' AND _how <> 'unused' THEN
        _until := _mine.since + _mine.min_hold;
        IF _mine.evicted OR _how = 'ungraceful' THEN
            _until := greatest(_until, _at + _mine.lock_delay);
        END IF;
        _until := least(_until, _mine.deadline);
        IF _until > _at THEN
            UPDATE claim c SET state = 'LINGERING', deadline = _until
            WHERE c.namespace = _ns AND c.name = _name AND c.fence = _mine.fence;
            PERFORM wake_next(_ns, _name);
            RETURN '"RELEASED"';
        END IF;
    END IF;
    DELETE FROM claim c WHERE c.namespace = _ns AND c.name = _name AND c.fence = _mine.fence;
    PERFORM offer(_ns, _name, _at);
    RETURN '"RELEASED"';
END $$;

CREATE FUNCTION evict(_ns text, _name text, _claim_id text, _now boolean) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = :"schema", pg_temp AS $$
DECLARE
    _at timestamptz := enter(_ns, _name);
    _mine claim;
    _place bigint;
BEGIN
    PERFORM settle(_ns, _name, _at);
    SELECT * INTO _mine FROM claim c WHERE c.namespace = _ns AND c.name = _name AND c.claim_id = _claim_id;
    IF _mine.fence IS NULL THEN
        RETURN '{"outcome": "ABSENT"}';
    END IF;
    _place := (SELECT count(*) FROM claim c WHERE c.namespace = _ns AND c.name = _name AND c.fence < _mine.fence);
    IF _now OR _mine.state IN ('WAITING', 'OFFERED') THEN
        DELETE FROM claim c WHERE c.namespace = _ns AND c.name = _name AND c.fence = _mine.fence;
        PERFORM wake(_ns, _claim_id), offer(_ns, _name, _at);
        RETURN jsonb_build_object('outcome', 'REMOVED', 'claim', shown(_mine, _place));
    END IF;
    IF _mine.state = 'HELD' THEN
        -- It blocks until its holder, who hears of it with its next renewal, cannot believe in it any more.
        UPDATE claim c SET evicted = true, deadline = least(c.deadline,
            greatest(c.renewed + c.ttl + c.lock_delay, c.since + c.min_hold))
        WHERE c.namespace = _ns AND c.name = _name AND c.fence = _mine.fence
        RETURNING * INTO _mine;
        PERFORM wake_next(_ns, _name);
    END IF;
    RETURN jsonb_build_object('outcome', 'MARKED', 'claim', shown(_mine, _place));
END $$;

CREATE FUNCTION resize(_ns text, _name text, _capacity integer) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = :"schema", pg_temp AS $$
DECLARE
    _at timestamptz := enter(_ns, _name);
    _count bigint;
    _removed record;
BEGIN
    PERFORM settle(_ns, _name, _at);
    UPDATE claim c SET capacity = _capacity WHERE c.namespace = _ns AND c.name = _name;
    GET DIAGNOSTICS _count = ROW_COUNT;
    FOR _removed IN
        DELETE FROM claim c WHERE c.namespace = _ns AND c.name = _name
            AND c.state IN ('WAITING', 'OFFERED') AND c.weight > _capacity
        RETURNING c.claim_id
    LOOP
        PERFORM wake(_ns, _removed.claim_id);
    END LOOP;
    PERFORM offer(_ns, _name, _at);
    RETURN to_jsonb(_count);
END $$;

-- Write a note, if it still is what the caller saw. What was merged is the caller's business.
CREATE FUNCTION annotate(_ns text, _name text, _claim_id text, _seen text, _note text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = :"schema", pg_temp AS $$
BEGIN
    PERFORM settle(_ns, _name, enter(_ns, _name));
    UPDATE claim c SET note = _note, asked = true WHERE c.namespace = _ns AND c.name = _name
        AND c.claim_id = _claim_id AND c.note IS NOT DISTINCT FROM _seen;
    RETURN to_jsonb(FOUND);
END $$;

CREATE FUNCTION get_record(_ns text, _name text) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = :"schema", pg_temp AS $$
    SELECT jsonb_build_object('version', r.version, 'value', r.value, 'written', extract(epoch FROM r.written))
    FROM kept_record r WHERE r.namespace = _ns AND r.name = _name
$$;

-- The record as it is afterwards, and whether that is the caller's.
CREATE FUNCTION put_record(_ns text, _name text, _value text, _version integer) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = :"schema", pg_temp AS $$
BEGIN
    IF _version = 0 THEN
        INSERT INTO kept_record VALUES (_ns, _name, 1, _value, clock_timestamp()) ON CONFLICT DO NOTHING;
    ELSE
        UPDATE kept_record r SET version = r.version + 1, value = _value, written = clock_timestamp()
        WHERE r.namespace = _ns AND r.name = _name AND r.version = _version;
    END IF;
    RETURN jsonb_build_object('written', FOUND, 'record', get_record(_ns, _name));
END $$;

CREATE FUNCTION inspect(_ns text, _name text) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = :"schema", pg_temp AS $$
    SELECT coalesce(jsonb_agg(shown(l.c, l.place) ORDER BY l.place), '[]') FROM (
        SELECT c, row_number() OVER (ORDER BY c.fence) - 1 AS place FROM claim c
        WHERE c.namespace = _ns AND c.name = _name AND c.deadline > clock_timestamp()
    ) l
$$;

CREATE FUNCTION names(_ns text, _prefix text) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = :"schema", pg_temp AS $$
    SELECT coalesce(jsonb_agg(DISTINCT c.name), '[]') FROM claim c
    WHERE c.namespace = _ns AND starts_with(c.name, _prefix) AND c.deadline > clock_timestamp()
$$;

-- Which of these claims have nothing to do but wait.
CREATE FUNCTION waiting(_ns text, _claim_ids text[]) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = :"schema", pg_temp AS $$
    SELECT coalesce(jsonb_agg(c.claim_id), '[]') FROM claim c
    WHERE c.namespace = _ns AND c.claim_id = ANY (_claim_ids) AND c.state = 'WAITING' AND c.deadline > clock_timestamp()
$$;

-- What a client asks when it connects.
CREATE FUNCTION hello(_ns text) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = :"schema", pg_temp AS $$
    SELECT jsonb_build_object('version', version, 'min_reader', min_reader, 'channel', channel(_ns),
        'at', extract(epoch FROM clock_timestamp()))
    FROM layout
$$;

-- Nobody may do anything by default. For those who lock, and for those who look, see README.md.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA :"schema" FROM PUBLIC;
COMMIT;
