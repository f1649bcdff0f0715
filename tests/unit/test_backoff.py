from pipeline.waiting import back_off_s


def test_waits_double_up_to_the_cap_and_leave_half_to_chance():
    assert all(0.125 <= back_off_s(1, 0.25, 30.0) <= 0.25 for _ in range(100))
    assert all(0.5 <= back_off_s(3, 0.25, 30.0) <= 1.0 for _ in range(100))
    assert all(15.0 <= back_off_s(n, 0.25, 30.0) <= 30.0 for n in range(8, 2000))
    assert len({back_off_s(5, 0.25, 30.0) for _ in range(10)}) > 1
