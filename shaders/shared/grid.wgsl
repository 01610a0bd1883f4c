// grid: a dispatch of any number of workgroups, folded into the dimensions x, y and z.

fn workgroup_index(workgroup: vec3<u32>, grid: vec3<u32>) -> u32 {
    return (workgroup.z * grid.y + workgroup.y) * grid.x + workgroup.x;
}
