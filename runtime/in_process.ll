; What a network has beside runtime/api.ll in the process that compiled it.

; As NAME_create_from_memory, from weights that are there while `visit` says that they are read (graphc_visit in api.ll);
; those that a run reads always are.
define i32 @NAME_create_visiting(ptr %out, i32 %threads, ptr %weights, i64 %bytes, ptr %visit) {
  %code = call i32 @graphc_create(ptr %out, i32 %threads, ptr %weights, i64 %bytes, ptr %visit)
  ret i32 %code
}
