import grpc

from autoglm.common import errors


def test_every_error_has_a_reason_of_its_own() -> None:
    reasons = [cls.reason for cls in errors.ERRORS]
    assert len(set(reasons)) == len(reasons)


def test_every_subclass_is_in_the_list_that_clients_decode() -> None:
    ours = {c for c in errors.AutoGLMError.__subclasses__() if c.__module__ == errors.__name__}
    assert ours == set(errors.ERRORS)


def test_every_grpc_status_exists() -> None:
    assert all(cls.grpc_status in grpc.StatusCode.__members__ for cls in errors.ERRORS)


def test_saturation_and_absence_have_different_codes() -> None:
    assert errors.QueueFull.http_status == 429
    assert errors.NoReadyEndpoint.http_status == 503


def test_an_error_lets_go_of_the_frames_of_all_that_led_to_it() -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError as first:
            raise errors.Internal("then") from first
    except errors.Internal as error:
        errors.forget_frames(error)
        assert error.__traceback__ is None
        assert error.__cause__ is not None and error.__cause__.__traceback__ is None


def test_an_error_that_is_its_own_cause_lets_go_as_well() -> None:
    error = errors.StreamBroken("raised again")
    error.__cause__ = error
    errors.forget_frames(error)
    assert error.__traceback__ is None
