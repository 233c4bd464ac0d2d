"""Passes that matter for networks in training: batch norm spelled out, expands left out, sums of expressions."""

from rewriting import check_rewrite

from graphc.passes import fuse_sums, remove_expands, spell_batch_norm


def test_batch_norm_by_computed_statistics_is_spelled_out() -> None:
    check_rewrite(
        spell_batch_norm,
        """
        graph g(%x: f32[N,3,H,W], %s: f32[3], %b: f32[3]) {
          %m: f32[3], %var: f32[3] = moments(%x) @ "moments"
          %y: f32[N,3,H,W] = batch_norm(%x, %s, %b, %m, %var)
          return %y
        }""",
        """
        graph g(%x: f32[N,3,H,W], %s: f32[3], %b: f32[3]) {
        %m: f32[3], %var: f32[3] = moments(%x) @ "moments"
        %fused_1: f32[3] = fused(%s, %var, expr='(x0 / sqrt((x1 + 1e-05)))')
        %reshape_1: f32[3,1,1] = reshape(%m, shape=(3, 1, 1))
        %reshape_2: f32[3,1,1] = reshape(%fused_1, shape=(3, 1, 1))
        %reshape_3: f32[3,1,1] = reshape(%b, shape=(3, 1, 1))
        %y: f32[N,3,H,W] = fused(%x, %reshape_1, %reshape_2, %reshape_3, expr='(((x0 - x1) * x2) + x3)')
        return %y
        }""",
    )


def test_elementwise_ops_read_what_is_expanded() -> None:
    check_rewrite(
        remove_expands,
        """
        graph g(%x: f32[N,3,H,W], %z: f32[3,1,1]) {
          %e: f32[N,3,H,W] = expand(%z, shape=(N, 3, H, W))
          %y: f32[N,3,H,W] = add(%x, %e)
          %alone: f32[N,3,H,W] = relu(%e)
          return %y, %alone
        }""",
        """
        graph g(%x: f32[N,3,H,W], %z: f32[3,1,1]) {
        %e: f32[N,3,H,W] = expand(%z, shape=(N, 3, H, W))
        %y: f32[N,3,H,W] = add(%x, %z)
        %alone: f32[N,3,H,W] = relu(%e)
        return %y, %alone
        }""",
    )


def test_what_is_only_added_up_is_not_stored() -> None:
    check_rewrite(
        fuse_sums,
        """
        graph g(%x: f32[N,3,H,W], %z: f32[3,1,1]) {
          %a: f32[N,3,H,W] = mul(%x, %z)
          %s: f32[3] = sum(%a, axes=(0, 2, 3), keepdims=False)
          %b: f32[N,3,H,W] = sub(%x, %z)
          %t: f32[3] = sum(%b, axes=(0, 2, 3), keepdims=False)
          %rows: f32[N,3,H,1] = sum(%x, axes=(3,))
          return %s, %t, %b, %rows
        }""",
        """
        graph g(%x: f32[N,3,H,W], %z: f32[3,1,1]) {
        %s: f32[3] = sum(%x, %z, axes=(0, 2, 3), keepdims=False, expr='(x0 * x1)')
        %b: f32[N,3,H,W] = sub(%x, %z)
        %t: f32[3] = sum(%b, axes=(0, 2, 3), keepdims=False)
        %rows: f32[N,3,H,1] = sum(%x, axes=(3,))
        return %s, %t, %b, %rows
        }""",
    )
